"""Who may sign certificates, with the real ssh-keygen; the controller's signature is `provision`'s."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from provision.edges import ssh_signature
from provision.smoke.certificate import NAMESPACE, sealed, signers_text, to_sign
from runtime.errors import BadInput
from runtime.gate.certificate import CONTROLLER, Certificate, parse, payload, proven_by, read
from runtime.gate.signature import sign, signer_of, trust_in
from tests.conftest import RecordRefusal
from tests.unit.runtime.launch.jobs import facts

NOW = datetime.now(UTC)
DIGEST = "e" * 64


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys of the controller, two nodes, and of a node that was removed."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("controller", "te1", "te2", "te9"):
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"of {name}", "-f", str(folder / name)]
        subprocess.run(words, check=True)
    ledger = {name: [(folder / f"{name}.pub").read_text()] for name in ("te1", "te2", "te9")}
    (folder / "signers").write_text(
        signers_text(["te1", "te2"], ledger, (folder / "controller.pub").read_text())
    )
    return folder


def certificate(signer: str) -> Certificate:
    return Certificate(
        signer=signer,
        nodes={"te1": 1, "te2": 1},
        environment=DIGEST,
        clusterwright=facts().clusterwright,
        torch=facts().torch,
        issued=NOW.isoformat(timespec="seconds"),
        expires=NOW.replace(year=NOW.year + 1).isoformat(timespec="seconds"),
        figures={"busbw_gb_s": 0.1 + 0.2, "slowest_pair_gb_s": None},
    )


def held(text: str, keys: Path) -> Certificate | str:
    return read(facts(certificate=text, environment=DIGEST), now=NOW, trust=trust_in(keys / "signers"))


def test_a_node_signs_with_its_own_key_and_the_gate_names_it(keys: Path) -> None:
    from runtime.gate.certificate import sealed as sealed_by_node

    made = certificate(signer_of(keys / "te2", keys / "signers"))

    found = held(sealed_by_node(made, sign(payload(made), keys / "te2")), keys)

    assert made.signer == "te2"
    assert found == made
    assert proven_by([found]) == "by te2"


@pytest.mark.attack("node")
@pytest.mark.parametrize("key", ["te1", "te9", "controller"])
@pytest.mark.parametrize("signer", ["te2", CONTROLLER, "te9"])
def test_no_node_signs_as_another_nor_as_the_controller(
    keys: Path, key: str, signer: str, record_refusal: RecordRefusal
) -> None:
    from runtime.gate.certificate import sealed as sealed_by_node

    made = certificate(signer)

    found = held(sealed_by_node(made, sign(payload(made), keys / key)), keys)

    record_refusal(found)
    assert isinstance(found, str)
    assert ("is not signed by" in found) is (signer != "te9")


def test_the_controller_signs_what_the_node_wrote_and_the_gate_says_so(keys: Path) -> None:
    made = certificate(CONTROLLER)
    result = {"verdict": "pass", "findings": [], "left_out": "", "certificate": _as_result(made)}

    text = to_sign(result, nodes=["te1", "te2"], valid_days=400, now=NOW)
    found = held(sealed(text, ssh_signature.sign(text, key=keys / "controller", namespace=NAMESPACE)), keys)

    assert text.encode() == payload(made)
    assert found == made
    assert proven_by([found]) == "by the controller"


@pytest.mark.attack("node")
@pytest.mark.parametrize(
    "namespace", ["clusterwright-image", "clusterwright-smoke", "clusterwright-smoke-node"]
)
def test_what_the_controller_signed_for_something_else_does_not_count(
    keys: Path, namespace: str, record_refusal: RecordRefusal
) -> None:
    made = certificate(CONTROLLER)
    signature = ssh_signature.sign(payload(made).decode(), key=keys / "controller", namespace=namespace)

    found = held(sealed(payload(made).decode(), signature), keys)

    record_refusal(found)
    assert found == "its certificate is not signed by the controller, or was altered since"


def test_a_key_of_nobody_here_names_no_node(keys: Path) -> None:
    assert signer_of(keys / "te9", keys / "signers") == ""


@pytest.mark.parametrize(("text", "words"), [(None, "No such file"), ("x y\n", "damaged"), ("", "damaged")])
def test_a_missing_or_damaged_list_says_what_to_do(tmp_path: Path, text: str | None, words: str) -> None:
    path = tmp_path / "signers"
    if text is not None:
        path.write_text(text)

    with pytest.raises(BadInput, match=f"{words}.*Run the role runtime"):
        trust_in(path)


def test_a_text_comes_back(keys: Path) -> None:
    made = certificate("te1")

    assert parse(sealed(payload(made).decode(), "s")) == (made, "s")


def _as_result(made: Certificate) -> object:
    """As it comes through the result of the test."""
    import json

    return json.loads(payload(made))
