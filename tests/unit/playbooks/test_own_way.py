"""A line of authorized_keys is not taken out while it is the one by which its writer gets in."""

from __future__ import annotations

import base64
import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from tests.unit.playbooks.test_node_files import run_module

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the module gives files to root")


def key(name: str) -> str:
    return f"ssh-ed25519 {base64.b64encode(name.encode()).decode()} {name}"


def fingerprint(line: str) -> str:
    digest = hashlib.sha256(base64.b64decode(line.split()[1])).digest()
    return f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"


CLUSTER, OLD, OWN = key("the cluster's"), key("the one before"), key("own")
LIMITED = f'from="10.0.0.1,10.0.0.0/28,!10.0.0.7,fd00::*",restrict,pty {CLUSTER}'


def written(folder: Path, lines: list[str], way: dict[str, str]) -> dict[str, Any]:
    """LIMITED in place of CLUSTER and OLD, for somebody who gets in that way."""
    path = folder / "authorized_keys"
    path.write_text("".join(f"{line}\n" for line in lines))
    before = path.stat().st_ino
    file = {"path": str(path), "lines": [LIMITED], "without": [CLUSTER, OLD], "own_way": way, "mode": "0600"}
    result = run_module("write_files", {"files": [file], "journal": f"{folder}/journal.json"})
    assert (path.stat().st_ino == before) is bool(result["failed"])
    return result


def way_of(line: str, address: str) -> dict[str, str]:
    return {"key": fingerprint(line), "address": address, "user": "root", "fix": "Do this."}


@pytest.mark.parametrize("address", ["10.0.0.9", "10.0.0.1", "fd00::5"])
def test_who_still_gets_in_from_there_may_write(tmp_path: Path, address: str) -> None:
    assert not written(tmp_path, [CLUSTER], way_of(CLUSTER, address))["failed"]


@pytest.mark.parametrize("address", ["10.0.0.7", "10.0.1.9", "fd01::1"])
def test_a_limit_that_leaves_the_writer_out_is_refused_by_name(tmp_path: Path, address: str) -> None:
    refused = written(tmp_path, [OWN, CLUSTER], way_of(CLUSTER, address))

    assert f"nothing was written. {tmp_path}/authorized_keys: you log in with the key" in refused["msg"]
    assert f"from {address}" in refused["msg"]
    assert refused["msg"].endswith("Do this.")


def test_a_key_that_was_given_up_is_closed_wherever_it_is_used(tmp_path: Path) -> None:
    assert written(tmp_path, [OLD], way_of(OLD, "10.0.0.1"))["failed"]


@pytest.mark.parametrize("way", [way_of(OWN, "10.9.9.9"), {}], ids=["an own key", "no key"])
def test_who_gets_in_by_another_way_may_write(tmp_path: Path, way: dict[str, str]) -> None:
    assert not written(tmp_path, [OWN, CLUSTER, OLD], way)["failed"]


def test_a_way_that_is_not_known_forbids_to_take_out_and_not_to_add(tmp_path: Path) -> None:
    unknown = {"unknown": "No route to host", "fix": "Do this."}

    assert "not known: No route to host. Do this." in written(tmp_path, [OWN, CLUSTER], unknown)["msg"]
    assert not written(tmp_path, [OWN], unknown)["failed"]


def test_a_line_with_options_of_others_does_not_count_as_open(tmp_path: Path) -> None:
    other = f'command="true x",from="10.9.9.9" {CLUSTER}'

    assert written(tmp_path, [CLUSTER, other], way_of(CLUSTER, "10.9.9.9"))["failed"]
    assert not written(tmp_path, [CLUSTER, f"{CLUSTER} of mine"], way_of(CLUSTER, "10.9.9.9"))["failed"]


@pytest.mark.parametrize("edited", [False, True], ids=["as it was written", "changed since"])
def test_a_teardown_does_not_close_it_either(tmp_path: Path, edited: bool) -> None:
    path = tmp_path / "authorized_keys"
    written(tmp_path, [OWN], way_of(OWN, "10.0.0.1"))
    path.write_text(path.read_text() + "# mine\n" * edited)
    before = path.read_text()
    arguments = {"journal": f"{tmp_path}/journal.json"}

    by_cluster = {"own_way": {str(path): way_of(CLUSTER, "10.0.0.1")}}
    refused = run_module("restore_files", {**arguments, **by_cluster})
    assert f"nothing was put back. {path}: you log in with the key" in refused["msg"]
    assert path.read_text() == before

    assert not run_module("restore_files", {**arguments, "own_way": {str(path): way_of(OWN, "1.1.1.1")}})[
        "failed"
    ]
    assert CLUSTER not in path.read_text()
