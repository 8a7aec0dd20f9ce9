"""What the controller does with the calls of machines made from an image."""

from __future__ import annotations

from pathlib import Path

import pytest

from provision.core.join import Call
from provision.errors import CommandFailed
from provision.fleet.restore import Arrivals, CallRecord
from provision.model import Machine


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    (tmp_path / "key.pub").write_text("ssh-ed25519 AAAA controller\n")
    (tmp_path / "known_hosts").write_text("10.0.0.3 ssh-ed25519 OLD\n10.0.0.4 ssh-ed25519 B\n")
    return Machine(
        name="te3",
        address="10.0.0.3",
        user="root",
        key_file=tmp_path / "key",
        known_hosts=tmp_path / "known_hosts",
    )


def call(address: str) -> Call:
    return Call(nonce="n", image="i", machine="m", address=address, host_keys=("ssh-ed25519 NEW",))


def test_a_machine_at_a_nodes_address_gets_its_name_and_its_keys_replace_the_old_ones(
    machine: Machine,
) -> None:
    arrivals = Arrivals([machine], lambda *_: None)

    answer = arrivals.on_call(call("10.0.0.3"))

    assert answer == {"name": "te3", "user": "root", "authorized_key": "ssh-ed25519 AAAA controller"}
    assert machine.known_hosts.read_text() == "10.0.0.4 ssh-ed25519 B\n10.0.0.3 ssh-ed25519 NEW\n"
    arrivals.wait(0.0)


def test_a_machine_at_another_address_waits_and_nothing_is_written(machine: Machine) -> None:
    before = machine.known_hosts.read_text()
    arrivals = Arrivals([machine], lambda *_: None)

    answer = arrivals.on_call(call("10.0.0.4"))

    assert "10.0.0.4 to no node that is waited for" in answer["wait"]
    assert machine.known_hosts.read_text() == before
    with pytest.raises(CommandFailed, match="wait for te3"):
        arrivals.wait(0.01)


def test_a_restore_that_was_cut_off_remembers_who_had_called(machine: Machine, tmp_path: Path) -> None:
    record = CallRecord(path=tmp_path / "arrived.json")
    Arrivals([machine], lambda *_: None, record).on_call(call("10.0.0.3"))

    again = Arrivals([machine], lambda *_: None, record)
    again.recall(lambda _: True)
    again.wait(0.0)

    assert again.arrived == {"te3": call("10.0.0.3")}


def test_a_machine_that_called_and_is_gone_is_waited_for(machine: Machine, tmp_path: Path) -> None:
    record = CallRecord(path=tmp_path / "arrived.json")
    Arrivals([machine], lambda *_: None, record).on_call(call("10.0.0.3"))

    again = Arrivals([machine], lambda *_: None, record)
    again.recall(lambda _: False)

    with pytest.raises(CommandFailed, match="wait for te3"):
        again.wait(0.01)


def test_a_machine_that_became_a_node_is_forgotten(machine: Machine, tmp_path: Path) -> None:
    record = CallRecord(path=tmp_path / "arrived.json")
    Arrivals([machine], lambda *_: None, record).on_call(call("10.0.0.3"))

    record.remove(["te3"])

    assert record.read() == {}
    assert record.path.stat().st_mode & 0o777 == 0o600
