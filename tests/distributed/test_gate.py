"""Who signs certificates on the loopback, and what zerorun and the controller's path make of it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from provision.edges import ssh_signature
from provision.smoke.certificate import NAMESPACE, sealed, signers_text, to_sign
from tests.conftest import RecordRefusal
from tests.distributed.launching import Ended, Launcher, nodes

Launch = Callable[..., Launcher]
pytestmark = pytest.mark.distributed
NODES = ("127.0.0.1", "127.0.0.2")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With a key of the controller and of each node, and the list of them."""
    for name in ("controller", *NODES):
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name)]
        subprocess.run(words, check=True)
    public = {name: (tmp_path / f"{name}.pub").read_text() for name in ("controller", *NODES)}
    ledger = {name: [public[name]] for name in NODES}
    (tmp_path / "signers").write_text(signers_text(NODES, ledger, public["controller"]))
    return tmp_path


def held(folder: Path) -> list[str]:
    return ["--certificate", str(folder / "certificate.json"), "--signers", str(folder / "signers")]


def smoke(launch: Launch, folder: Path, *words: str) -> Ended:
    sizes = ("--sizes", "4", "--timeout", "60", "--json", str(folder / "smoke.json"))
    launcher = launch(folder, *nodes(folder, 1, 1), *held(folder), *sizes, *words, module="runtime smoke")
    finished: Ended = launcher.wait(400)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished


def zerorun(launch: Launch, folder: Path) -> Ended:
    words = (*nodes(folder, 1, 1), *held(folder), "--log-dir", str(folder / "job"), "--no-python", "true")
    finished: Ended = launch(folder, *words, gated=True).wait(200)
    return finished


def test_a_job_starts_on_what_the_node_proved_then_on_what_the_controller_did(
    launch: Launch, folder: Path
) -> None:
    smoke(launch, folder, "--key", str(folder / "127.0.0.1"))
    by_node = zerorun(launch, folder)

    again = smoke(launch, folder, "--for-controller", "--unless-proven")
    result = json.loads((folder / "smoke.json").read_text())
    text = to_sign(result, nodes=NODES, valid_days=8, now=datetime.now(UTC))
    signature = ssh_signature.sign(text, key=folder / "controller", namespace=NAMESPACE)
    given = launch(
        folder, *nodes(folder, 1, 1)[:2], *held(folder), sealed(text, signature), module="runtime certify"
    ).wait(200)
    by_controller = zerorun(launch, folder)

    assert by_node.returncode == 0, by_node.stderr
    assert "proven by 127.0.0.1;" in by_node.stderr
    # What a node signed is no proof to the controller.
    assert result["left_out"] == "", again.stdout
    assert given.returncode == 0, given.stderr
    assert by_controller.returncode == 0, by_controller.stderr
    assert "proven by the controller;" in by_controller.stderr


@pytest.mark.attack("node")
def test_a_certificate_that_a_node_signed_as_the_controller_is_handed_to_nobody(
    launch: Launch, folder: Path, record_refusal: RecordRefusal
) -> None:
    smoke(launch, folder, "--for-controller")
    text = to_sign(
        json.loads((folder / "smoke.json").read_text()), nodes=NODES, valid_days=8, now=datetime.now(UTC)
    )
    forged = sealed(text, ssh_signature.sign(text, key=folder / "127.0.0.2", namespace=NAMESPACE))

    given = launch(folder, *nodes(folder, 1, 1)[:2], *held(folder), forged, module="runtime certify").wait(
        200
    )
    (folder / "certificate.json").write_text(forged)
    started = zerorun(launch, folder)

    record_refusal(given.stderr)
    record_refusal(started.stderr)
    assert given.returncode == 2
    assert "the controller whose key this node knows did not sign it" in given.stderr
    assert started.returncode == 1
    assert "its certificate is not signed by the controller, or was altered since" in started.stderr
