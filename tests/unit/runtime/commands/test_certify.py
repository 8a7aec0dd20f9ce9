"""`python -m runtime certify`, as far as what nodes answer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from unittest.mock import MagicMock

import pytest
from typer.testing import CliRunner

from runtime.cli import app
from runtime.commands import certify
from runtime.gate.certificate import CONTROLLER
from runtime.probes.preflight_checks import Problem
from tests.conftest import RecordRefusal


@pytest.mark.attack("node")
def test_a_terminal_obeys_nothing_of_what_a_node_says_to_a_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_refusal: RecordRefusal
) -> None:
    found = "has torch 2\x1b]0;owned\x07\x1b[2K\rall 2 nodes have it"
    problem = Problem(check="torch", host="te2", ranks=(2,), found=found, fix="Make the nodes equal.")
    for name in ("go_on_as_cluster_user", "signing_with", "payload", "open_session", "on_signals"):
        monkeypatch.setattr(certify, name, MagicMock())
    monkeypatch.setattr(certify, "_parsed", lambda _: (MagicMock(signer=CONTROLLER, nodes={"te1": 2}), ""))
    monkeypatch.setattr(certify, "preflight", lambda _: (problem,))
    monkeypatch.setattr(certify, "hand_out", lambda *_: (replace(problem, host="te1"),))
    hostfile = tmp_path / "hostfile"
    hostfile.write_text("te1 slots=2\n")

    said = CliRunner().invoke(app, ["certify", "sealed", "--hostfile", str(hostfile)])

    record_refusal(repr(said.stderr))
    assert said.exit_code == 1
    assert said.stderr.splitlines() == [
        f"{host} (rank 2): has torch 2all 2 nodes have it. Make the nodes equal." for host in ("te2", "te1")
    ]
