from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from provision.errors import BadInput
from provision.lab.apply import forget_trust, host_keys, make_files
from provision.lab.lab import Asked, nodes_called, restored_lab, wanted_lab
from provision.lab.layout import DEFAULT_DISK_BYTES, Lab, lay_out
from provision.lab.record import as_data, from_data
from provision.lab.snapshot import Snapshot
from tests.conftest import RecordRefusal

BASE = Path("/cache/new/root")


@pytest.fixture
def existing(tmp_path: Path) -> Lab:
    return lay_out(
        name="lab",
        subnet="10.77.9.0/24",
        count=3,
        disk_bytes=1 << 30,
        base=Path("/cache/old/root"),
        root=tmp_path,
    )


def wanted(asked: Asked, existing: Lab | None) -> Lab:
    root = existing.folder.parent if existing else Path("/labs")
    return wanted_lab("lab", asked, existing=existing, base=BASE, root=root)


def test_a_new_lab_has_four_nodes_unless_asked_otherwise() -> None:
    default = wanted(Asked(), None)
    other = wanted(Asked(subnet="10.0.0.0/24", count=2, disk_bytes=1 << 20), None)

    assert (str(default.subnet), default.count, default.disk_bytes) == ("10.77.0.0/24", 4, DEFAULT_DISK_BYTES)
    assert (str(other.subnet), other.count, other.disk_bytes) == ("10.0.0.0/24", 2, 1 << 20)
    assert default.base == BASE


def test_a_lab_of_another_release_keeps_it_and_cannot_change_it() -> None:
    first = wanted_lab("lab", Asked(), existing=None, base=BASE, release="trixie")

    assert wanted_lab("lab", Asked(), existing=first, base=BASE) == first
    assert from_data(as_data(first), first.folder) == first
    with pytest.raises(BadInput, match="it exists with 4 nodes of trixie"):
        wanted_lab("lab", Asked(), existing=first, base=BASE, release="bookworm")


def test_an_existing_lab_needs_no_options_and_keeps_the_image_that_it_was_made_from(existing: Lab) -> None:
    assert wanted(Asked(), existing) == existing


def test_an_existing_lab_grows(existing: Lab) -> None:
    assert wanted(Asked(count=5), existing).count == 5


@pytest.mark.parametrize("asked", [Asked(count=2), Asked(subnet="10.77.0.0/24"), Asked(disk_bytes=2 << 30)])
def test_an_existing_lab_never_changes_otherwise(existing: Lab, asked: Asked) -> None:
    with pytest.raises(BadInput, match="provision lab down --name lab"):
        wanted(asked, existing)


@pytest.fixture
def frozen(existing: Lab) -> Snapshot:
    return Snapshot(name="proven", folder=existing.folder.parent / "snapshots", lab=existing, made="")


def test_a_snapshot_gives_its_lab_back_perhaps_with_more_nodes(existing: Lab, frozen: Snapshot) -> None:
    same = replace(existing, snapshot="proven")

    assert restored_lab("lab", Asked(), existing=None, frozen=frozen) == same
    assert restored_lab("lab", Asked(count=5), existing=same, frozen=frozen).count == 5
    assert restored_lab("lab", Asked(), existing=replace(same, count=5), frozen=frozen).count == 5
    assert wanted(Asked(), same) == same


@pytest.mark.parametrize(
    ("name", "asked", "said"),
    [
        ("lab2", Asked(), "it is of lab lab.*--from proven --name lab"),
        ("lab", Asked(subnet="10.77.1.0/24"), "10.77.9.0/24"),
        ("lab", Asked(count=2), "only nodes can be added"),
        ("lab", Asked(disk_bytes=2 << 30), "disks of 1 GiB"),
    ],
)
def test_a_snapshot_is_of_one_lab_and_its_addresses(
    frozen: Snapshot, name: str, asked: Asked, said: str
) -> None:
    with pytest.raises(BadInput, match=said):
        restored_lab(name, asked, existing=None, frozen=frozen)


def test_a_lab_that_exists_is_not_turned_into_a_snapshots(existing: Lab, frozen: Snapshot) -> None:
    with pytest.raises(BadInput, match="provision lab down --name lab"):
        restored_lab("lab", Asked(), existing=existing, frozen=frozen)


def test_host_keys_are_those_that_the_kernel_would_show_through_all_layers(tmp_path: Path) -> None:
    young, old = tmp_path / "young/etc/ssh", tmp_path / "old/etc/ssh"
    for folder, names in ((young, ["rsa"]), (old, ["ecdsa", "ed25519", "rsa"])):
        folder.mkdir(parents=True)
        for name in names:
            (folder / f"ssh_host_{name}_key.pub").write_text(name)
    os.mkfifo(young / "ssh_host_ecdsa_key.pub")  # no file: for the kernel a device 0/0 is one that is deleted
    layers = [tmp_path / "young", tmp_path / "none", tmp_path / "old"]

    assert host_keys(layers) == [old / "ssh_host_ed25519_key.pub", young / "ssh_host_rsa_key.pub"]


@pytest.mark.attack("node")
@pytest.mark.parametrize("link", ["ssh_host_rsa_key.pub", "."])
def test_no_link_that_a_node_made_leads_to_a_file_of_this_machine(
    link: str, tmp_path: Path, record_refusal: RecordRefusal
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "ssh_host_rsa_key.pub").write_text("this machine's secret\n")
    written = tmp_path / "node/etc/ssh"
    (written.parent if link == "." else written).mkdir(parents=True)
    (written / link).symlink_to(outside / link) if link != "." else written.symlink_to(outside)

    found = host_keys([tmp_path / "node"])

    record_refusal(f"of the node's keys are read: {found}")
    assert found == []


def test_no_nodes_at_all_is_refused() -> None:
    with pytest.raises(BadInput, match="1 to 64 nodes"):
        wanted(Asked(count=0), None)


def test_no_names_mean_all_nodes_and_an_unknown_name_is_refused(existing: Lab) -> None:
    assert [node.name for node in nodes_called(existing, [])] == ["te1", "te2", "te3"]
    assert [node.name for node in nodes_called(existing, ["te3", "te1"])] == ["te3", "te1"]
    with pytest.raises(BadInput, match="te1 to te3"):
        nodes_called(existing, ["te9"])


def test_new_nodes_forget_the_trust_in_the_old_ones_and_keep_what_they_join_with(existing: Lab) -> None:
    secrets = existing.folder / "secrets"
    secrets.mkdir(parents=True)
    for name in ("cluster_key", "host_keys.yml", "join_key", "join_tokens.json", "controller_key"):
        (secrets / name).write_text("x")

    forget_trust(existing)

    assert sorted(path.name for path in secrets.iterdir()) == [
        "controller_key",
        "join_key",
        "join_tokens.json",
    ]
    for path in secrets.iterdir():
        path.unlink()
    forget_trust(existing)
    assert not secrets.exists()


def test_a_new_node_finds_its_own_user_data_where_a_cloud_leaves_it(existing: Lab) -> None:
    existing.user_data.mkdir(parents=True)
    (existing.user_data / "te1.json").write_text("told")
    existing.ssh_key.with_suffix(".pub").write_text("key")
    for node in existing.nodes[:2]:
        make_files(existing, node)
    place = "var/lib/cloud/instance/user-data.txt"

    assert (existing.nodes[0].upper / place).read_text() == "told"
    assert (existing.nodes[0].upper / place).stat().st_mode & 0o777 == 0o600
    assert not (existing.nodes[1].upper / place).exists()
