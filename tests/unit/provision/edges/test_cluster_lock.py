"""One controller at a time: who comes second is told who holds it, and a holder that died holds nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from provision.edges import cluster_lock
from provision.errors import Busy

HOLD = """
import sys
from pathlib import Path
from provision.edges import cluster_lock
with cluster_lock.hold(Path(sys.argv[1]), "site.yml"):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def other(secrets: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the cluster."""
    words = [sys.executable, "-c", HOLD, str(secrets)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_the_second_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    with other(tmp_path) as process:
        with pytest.raises(Busy) as refused, cluster_lock.hold(tmp_path, "members.yml"):
            pass
        held = cluster_lock.holder(tmp_path)

    assert f"site.yml holds it: process {process.pid} on {os.uname().nodename}, since 20" in str(
        refused.value
    )
    assert held is not None
    assert not cluster_lock.is_ours(held)


def test_a_holder_that_was_killed_holds_nothing(tmp_path: Path) -> None:
    with other(tmp_path) as process:
        process.kill()
        process.wait()

        assert cluster_lock.holder(tmp_path) is None
        with cluster_lock.hold(tmp_path, "members.yml"):
            pass


def test_a_cluster_that_nobody_holds_is_free_again(tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"

    assert cluster_lock.holder(secrets) is None
    with cluster_lock.hold(secrets, "one"):
        pass
    assert cluster_lock.holder(secrets) is None
    assert secrets.stat().st_mode & 0o777 == 0o700


def test_a_process_that_the_holder_started_works_for_it(tmp_path: Path) -> None:
    ask = (
        "import sys; from pathlib import Path; from provision.edges import cluster_lock as lock; "
        "print(lock.is_ours(lock.holder(Path(sys.argv[1]))))"
    )
    with cluster_lock.hold(tmp_path, "provision node add te5"):
        words = [sys.executable, "-c", ask, str(tmp_path)]
        answer = subprocess.run(words, capture_output=True, text=True, check=True)

    assert answer.stdout == "True\n"
