from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from provision.diagnose import node_program
from tests.conftest import RecordRefusal

SECRET = "root's own"


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


def fifo(path: Path) -> None:
    os.mkfifo(path)


def without_end(path: Path) -> None:
    path.touch()
    os.truncate(path, 4 << 30)


def link(path: Path) -> None:
    (path.parent / "secret").write_text(json.dumps({"certificate": SECRET}))
    path.symlink_to(path.parent / "secret")


def folder(path: Path) -> None:
    path.mkdir()


def deep(path: Path) -> None:
    path.write_text("[" * 200_000)


def no_mapping(path: Path) -> None:
    path.write_text("[1]")


@pytest.mark.attack("user")
@pytest.mark.parametrize("trap", [fifo, without_end, link, folder, deep, no_mapping])
def test_what_the_user_of_jobs_left_there_keeps_root_from_nothing(
    trap: Callable[[Path], None], tmp_path: Path, record_refusal: RecordRefusal
) -> None:
    """In memory of 1 GiB; a pipe would be waited for without end."""
    text = Path(node_program.__file__).read_text()
    program = text.replace('"/etc/clusterwright"', repr(str(tmp_path)))
    for name in ("certificate.json", "environment.json", "job.env"):
        trap(tmp_path / name)

    finished = subprocess.run(
        ["prlimit", f"--as={1 << 30}", sys.executable, "-I", "-c", program, "127.0.0.1", "localhost"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert finished.returncode == 0, finished.stderr
    told = json.loads(finished.stdout.splitlines()[1])
    record_refusal(f"told of the certificate: {told['certificate']}")
    assert (told["certificate"], told["clusterwright"], told["job_interface"]) == (None, "none", "")
    assert SECRET not in finished.stdout


def test_the_certificate_is_told(tmp_path: Path) -> None:
    (tmp_path / "certificate.json").write_text('{"certificate": {"verdict": "pass"}, "signature": "x"}')
    (tmp_path / "environment.json").write_text('{"prefix": "/x", "digest": "abc"}')
    text = Path(node_program.__file__).read_text().replace('"/etc/clusterwright"', repr(str(tmp_path)))

    finished = subprocess.run(
        [sys.executable, "-I", "-c", text, "127.0.0.1"], capture_output=True, text=True, check=True
    )

    told = json.loads(finished.stdout.splitlines()[1])
    assert told["certificate"] == {"verdict": "pass"}
    assert told["versions"]["environment digest"] == "abc"
