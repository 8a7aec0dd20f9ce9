"""A rank's end and a signal at the same time: the program's own words stay the last in the log."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from runtime.edges import process
from runtime.job import spec
from tests.unit.runtime.launch.jobs import job

# The rank as it is started, but a signal reaches it at the moment at which its program was reaped.
SIGNAL_AFTER_THE_END = """\
import os, signal, sys
from runtime.launch import rank
waitpid = os.waitpid
def then_signal(*words):
    ended = waitpid(*words)
    if ended[0]:
        os.kill(os.getpid(), signal.SIGTERM)
    return ended
os.waitpid = then_signal
raise SystemExit(rank.main(sys.argv[1:], os.environ))
"""
FAILS = "raise RuntimeError('the user is to see this')"


def rank(
    folder: Path, python: list[str], *words: str, can_record: bool = True
) -> tuple[int, int | None, str]:
    """Runs a program as a rank; the status of the rank, the status that it recorded, and the log."""
    (folder / "logs").mkdir(exist_ok=True)
    asked = job(kind="program", words=words, job_path=str(folder), cwd=str(folder))
    order = spec.orders(asked, master_addr="127.0.0.1", master_port=29500)[0]
    Path(order.rank_log(0)).write_text("")
    if not can_record:
        Path(order.rank_exit(0)).mkdir()
    environment = {**os.environ, "LOCAL_RANK": "0", "RANK": "0", **spec.to_variables(order)}
    finished = subprocess.run([sys.executable, *python, "0"], env=environment, check=False)
    record = Path(order.rank_exit(0))
    recorded: dict[str, Any] = json.loads(record.read_text()) if record.is_file() else {}
    return finished.returncode, recorded.get("status"), Path(order.rank_log(0)).read_text()


def test_a_signal_after_the_end_leaves_the_users_traceback_the_last_word(tmp_path: Path) -> None:
    status, recorded, log = rank(tmp_path, ["-c", SIGNAL_AFTER_THE_END], sys.executable, "-c", FAILS)

    assert log.splitlines()[-1] == "RuntimeError: the user is to see this"
    assert (status, recorded) == (1, 1)


def test_an_end_that_cannot_be_recorded_leaves_the_users_traceback_the_last_word(tmp_path: Path) -> None:
    as_started = ["-m", "runtime.launch.rank"]

    found = rank(tmp_path, as_started, sys.executable, "-c", FAILS, can_record=False)

    assert found[2].splitlines()[-1] == "RuntimeError: the user is to see this"
    assert found[:2] == (1, None)


def test_a_signal_at_the_end_is_the_programs_or_nobodys(tmp_path: Path) -> None:
    ends = "kill -TERM $PPID; exit 3"
    found = [rank(tmp_path, ["-m", "runtime.launch.rank"], "sh", "-c", ends) for _ in range(30)]

    assert {log for _, _, log in found} == {""}
    assert {(status, recorded) for status, recorded, _ in found} <= {(3, 3), (128 + 15, -15)}


def test_a_signal_reaches_the_program_where_its_parent_ignores_its_children(tmp_path: Path) -> None:
    traps = "trap 'echo asked; exit 7' TERM; kill -TERM $PPID; while :; do sleep 0.05; done"
    ignoring = "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); "
    ignoring += "from runtime.launch import rank; raise SystemExit(rank.main(sys.argv[1:], os.environ))"

    assert rank(tmp_path, ["-c", ignoring], "sh", "-c", traps) == (7, 7, "asked\n")


def test_words_of_any_length_arrive_and_the_program_sees_no_order(tmp_path: Path) -> None:
    long, show = "ä" * 60_000, "import os, sys; print(len(sys.argv[1]), 'ORDER' in str(os.environ))"

    status, _, log = rank(tmp_path, ["-m", "runtime.launch.rank"], sys.executable, "-c", show, long)

    assert (status, log) == (0, "60000 False\n")


def test_a_later_process_of_the_same_number_is_not_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was seen below this process ended, and its number is a stranger's by now."""
    with subprocess.Popen(["sleep", "60"]) as stranger:
        seen = process._process(stranger.pid)
        assert seen is not None
        earlier = process._Process(pid=seen.pid, state="S", parent=os.getpid(), born=f"{int(seen.born) - 1}")

        sent = process._kill(earlier)

        assert not sent
        assert stranger.poll() is None
        assert process.kill_descendants(os.getpid()) == 1
        assert stranger.wait(50) == -signal.SIGKILL
