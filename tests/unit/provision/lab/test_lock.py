from __future__ import annotations

import os
import subprocess
import sys

import pytest

from provision.errors import Busy
from provision.lab.lock import hold

HOLDER = """\
import sys
from provision.lab.lock import hold
with hold(sys.argv[1]):
    print(1, flush=True)
    input()
"""


@pytest.fixture
def name() -> str:
    return f"test {os.getpid()}"


def test_a_second_holder_is_refused_and_told_the_first_ones_process(name: str) -> None:
    with hold(name), pytest.raises(Busy) as refused, hold(name):
        pass

    assert str(os.getpid()) in refused.value.found


def test_the_lock_is_free_again_after_its_holder_was_killed(name: str) -> None:
    words = [sys.executable, "-c", HOLDER, name]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(Busy, match=f"process {holder.pid} "), hold(name):
            pass
        holder.kill()

    with hold(name):
        pass


def test_whoever_waits_gets_the_lock_when_it_is_free(name: str) -> None:
    words = [sys.executable, "-c", HOLDER, name]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        holder.stdout.readline()
        holder.stdin.write(b"\n")
        holder.stdin.flush()

        with hold(name, wait_seconds=10):
            pass


def test_locks_of_other_names_are_apart(name: str) -> None:
    with hold(name), hold(f"{name} other"):
        pass
