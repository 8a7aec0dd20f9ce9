"""Who runs jobs and is not root asks root, through a socket, whether the firewall holds."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime.probes.job_firewall import Intrusion, Probed, _probed
from runtime.untrusted.conform import conform

Answering = Callable[[bytes], Path]


@pytest.fixture
def answering(tmp_path: Path) -> Answering:
    """A socket that says some bytes to the first who comes."""

    def serve(said: bytes) -> Path:
        path = tmp_path / "probe"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen()

        def answer() -> None:
            line, _ = listener.accept()
            line.sendall(said)
            line.close()
            listener.close()

        threading.Thread(target=answer, daemon=True).start()
        return path

    return serve


def test_what_root_says_is_taken(answering: Answering) -> None:
    said = {
        "status": 0,
        "out": "{}",
        "errors": "",
        "intrusion": {"refused": ["a:1"], "reached": [], "left_out": ""},
    }

    found = _probed(answering(json.dumps(said).encode()))

    assert found == Probed(status=0, out="{}", errors="", intrusion=Intrusion(refused=("a:1",)))


@pytest.mark.parametrize("said", [b"", b"[]", b'{"status": 0}', b"\xff", b'{"status": "0"'])
def test_an_answer_that_is_none_is_no_answer(said: bytes, answering: Answering) -> None:
    assert _probed(answering(said)) is None


def test_where_nobody_answers_nothing_is_known(tmp_path: Path) -> None:
    assert _probed(tmp_path / "nobody") is None


def test_the_program_of_the_socket_says_what_is_live(answering: Answering) -> None:
    """Whatever nft says here: its answer is one that is taken."""
    done = subprocess.run(
        [sys.executable, "-I", "-m", "runtime.probes.job_firewall", "127.0.0.1"],
        capture_output=True,
        text=True,
        check=True,
    )

    probed: Probed = conform(Probed, json.loads(done.stdout))
    tried = probed.intrusion
    assert bool(tried.refused) + bool(tried.reached) + bool(tried.left_out) == 1
