from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from provision.fleet import node_program


def test_the_program_runs_alone_and_says_the_time_first() -> None:
    text = Path(node_program.__file__).read_text()
    before = time.time()

    finished = subprocess.run(
        [sys.executable, "-I", "-c", text, "127.0.0.1", "localhost", "no-such-name.invalid"],
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
    )

    clock, facts = finished.stdout.splitlines()
    told = json.loads(facts)
    assert before <= float(clock) <= time.time()
    assert told["names"] == {"localhost": "127.0.0.1", "no-such-name.invalid": ""}
    assert told["interface"] == "lo"
    assert told["mtu"] == int(Path("/sys/class/net/lo/mtu").read_text())
    assert told["free"]["/"] > 0
    assert set(told["own"]).isdisjoint({"127.0.0.1"})
    assert told["versions"]["kernel"]
