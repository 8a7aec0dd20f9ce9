"""How the three programs end: words and a status, never a traceback of ours, `Aborted.` for nothing."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = ("provision.cli", "runtime.cli", "runtime.launch.cli")
# A command of a program's own kind that does what a test says, behind the program's own door.
BEHAVES = """\
import importlib, sys, time
door = importlib.import_module(sys.argv[1])
def behave():
    {behaviour}
if door.app.registered_groups or len(door.app.registered_commands) > 1:
    door.app.command("behave")(behave)
    sys.argv[1:] = ["behave"]
else:
    (only,) = door.app.registered_commands
    only.callback, only.context_settings = behave, {{}}
    sys.argv[1:] = []
door.main()
"""


def ends(program: str, behaviour: str) -> tuple[int, str]:
    told = subprocess.run(
        [sys.executable, "-c", BEHAVES.format(behaviour=behaviour), program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return told.returncode, told.stdout + told.stderr


@pytest.mark.parametrize("program", PROGRAMS)
def test_an_input_that_ends_early_is_no_abort(program: str) -> None:
    status, said = ends(program, "raise EOFError")

    assert status == 1
    assert "found: an input ended early" in said
    assert "Aborted" not in said


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_file_that_cannot_be_used_is_named(program: str) -> None:
    status, said = ends(program, "open('/proc/no/such', 'w')")

    assert status == 2
    assert "error: cannot use /proc/no/such\nfound: No such file or directory\nfix: " in said


@pytest.mark.parametrize("program", PROGRAMS)
def test_an_interrupt_is_said_and_ends_with_130(program: str) -> None:
    words = [
        sys.executable,
        "-c",
        BEHAVES.format(behaviour="print('up', flush=True); time.sleep(60)"),
        program,
    ]
    with subprocess.Popen(
        # A shell's background job ignores interrupts, and so would what it starts.
        ["env", "--default-signal=INT", *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "up\n"
        running.send_signal(signal.SIGINT)
        _, said = running.communicate()

    assert (running.returncode, said) == (130, "interrupted\n")


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_reader_that_leaves_is_no_error(program: str) -> None:
    read, write = os.pipe()
    os.close(read)
    words = [sys.executable, "-c", BEHAVES.format(behaviour="print('much')"), program]

    told = subprocess.run(
        words, cwd=ROOT, stdout=write, stderr=subprocess.PIPE, text=True, check=False, timeout=60
    )
    os.close(write)

    assert (told.returncode, told.stderr) == (1, "")


@pytest.mark.parametrize(
    "words",
    [
        ("provision.cli", "smoke", "-i", "inventory/lab", "--json"),
        ("provision.cli", "smoke", "-i", "inventory/lab", "--html"),
        ("runtime.cli", "smoke", "--junit"),
        ("runtime.cli", "bench", "zero", "--plot"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("path", ["/proc/result", "/dev/null/result", "/"])
def test_a_result_that_cannot_be_written_is_refused_before_the_work(
    words: tuple[str, ...], path: str
) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    told = subprocess.run(
        [sys.executable, "-m", *words, path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert told.returncode == 2
    assert told.stderr.startswith(f"error: cannot write {path}\nfound: "), told.stderr
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 15
