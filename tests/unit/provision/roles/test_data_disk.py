"""The disk is chosen and formatted only where nothing speaks against it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from provision.errors import ProvisionError
from provision.roles.data_disk import (
    DiskPlan,
    plan_data_disk,
    refusal_of_sharing,
    refuse_entry_of_others,
    shared_with,
)
from provision.roles.disks import Folder, Wanted

CASES = yaml.safe_load((Path(__file__).parents[3] / "cases" / "data_disk" / "cases.yml").read_text())
BLANK = {
    "number": "252:16",
    "size": 12 * 2**30,
    "serial": "",
    "is_partition": False,
    "partitions": [],
    "holders": [],
    "is_swap": False,
    "is_read_only": False,
    "mounted_at": [],
    "signatures": [],
    "file_system": "",
    "label": "",
    "uuid": "",
    "ends_are_zero": True,
    "damage": "",
    "unreadable": "",
}
EMPTY = {
    "numbers": [],
    "root": "",
    "source": "",
    "file_system": "",
    "is_read_only": False,
    "is_noexec": False,
    "is_folder": True,
    "is_there": True,
    "entries": 0,
    "names": [],
}


def plan(case: dict[str, Any]) -> DiskPlan:
    """As the filter of role data_disk does it."""
    wanted = Wanted(
        device=case.get("device", ""),
        serial=case.get("serial", ""),
        label="cw-data",
        mount_path="/data",
        adopt=case.get("adopt", ""),
        programs=case.get("programs", "/data/miniconda3/envs/llm"),
    )
    devices = [{**BLANK, **device} for device in case["devices"]]
    folder, fstab = Folder(**{**EMPTY, **case.get("folder", {})}), case.get("fstab", [])
    found = plan_data_disk(devices, wanted, folder=folder, fstab=fstab)
    refuse_entry_of_others(fstab, found, wanted)
    return found


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if "action" in case])
def test_a_disk_that_is_ours_or_blank_is_used(name: str) -> None:
    case = CASES[name]

    found = plan(case)

    assert (found.action, found.path) == (case["action"], case["chosen"])


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if "refused" in case])
def test_anything_else_is_refused_and_named(name: str) -> None:
    case = CASES[name]

    with pytest.raises(ProvisionError) as refusal:
        plan(case)

    for words in case["refused"]:
        assert words in str(refusal.value)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if "refused" in case])
def test_nobody_is_told_to_delete_what_a_disk_holds(name: str) -> None:
    with pytest.raises(ProvisionError) as refusal:
        plan(CASES[name])

    for word in ("wipefs", "blkdiscard", "mkfs", "dd ", "rm ", "e2label"):
        assert word not in str(refusal.value)


@pytest.mark.parametrize(
    "name", [name for name, case in CASES.items() if "adopt" in case and "action" in case]
)
def test_what_is_adopted_keeps_its_file_system_and_label(name: str) -> None:
    found = plan(CASES[name])

    of_it = next(one for one in CASES[name]["devices"] if one["path"] == found.path)
    assert found.is_adopted
    assert (found.file_system, found.label) == (of_it["file_system"], of_it.get("label", ""))


def test_the_line_of_fstab_that_mounts_an_adopted_disk_stays() -> None:
    kept = [
        plan(CASES[name]).their_entry
        for name in CASES
        if CASES[name].get("fstab") and "adopt" in name and "action" in CASES[name]
    ]

    assert kept == ["/dev/vdb /data xfs defaults,prjquota 0 0", "LABEL=models /data ext4 defaults"]


def test_nodes_that_would_have_one_folder_are_told_and_others_are_not() -> None:
    shared = {**EMPTY, "numbers": ["0:44"], "root": "/", "source": "nas:/data", "file_system": "nfs4"}
    of_its_own = {**shared, "source": "nas:/te3"}
    local = {**shared, "source": "/dev/vdb", "file_system": "ext4"}
    mounts = {"te1": shared, "te2": shared, "te3": of_its_own, "te4": local, "te5": local}

    assert {name: shared_with(mounts, name) for name in mounts if shared_with(mounts, name)} == {
        "te1": ["te2"],
        "te2": ["te1"],
    }
    said = refusal_of_sharing("te1", ["te2"], shared, "/data")
    assert "te2 keep theirs in the same place, nas:/data (nfs4)" in said
    assert "set cluster_data_path to a folder of each node's own disk" in said


ENTRY = {
    "ours": ["UUID=u1", "/data", "ext4", "noatime,nofail,x-systemd.device-timeout=30s", "0", "2"],
    "ours_of_a_disk_that_is_gone": ["UUID=u7", "/data", "ext4", "noatime,nofail,x-systemd.device-timeout=9s"],
    "of_another_folder": ["UUID=u7", "/models", "xfs", "defaults"],
    "theirs_for_this_disk": ["/dev/vdb", "/data", "ext4", "defaults"],
    "theirs_for_another": ["LABEL=models", "/data", "ext4", "defaults,nofail", "0", "2"],
}
PLAN = DiskPlan(action="mount", path="/dev/vdb", uuid="u1", reason="")
WANTED = Wanted(device="", serial="", label="cw-data", mount_path="/data")


def test_a_line_of_fstab_that_names_this_disk_is_replaced_and_said() -> None:
    replaced = {
        name: refuse_entry_of_others([fields], PLAN, WANTED)
        for name, fields in ENTRY.items()
        if name != "theirs_for_another"
    }

    assert replaced == {**dict.fromkeys(replaced, ""), "theirs_for_this_disk": "/dev/vdb /data ext4 defaults"}


def test_a_line_of_fstab_that_gives_the_folder_to_another_device_is_refused() -> None:
    with pytest.raises(ProvisionError, match=r"LABEL=models /data ext4 .*; nothing was written"):
        refuse_entry_of_others(list(ENTRY.values()), PLAN, WANTED)


@pytest.mark.parametrize("label", ["", "seventeen-letters"])
def test_a_label_that_ext4_would_cut_off_is_refused(label: str) -> None:
    wanted = Wanted(device="", serial="", label=label, mount_path="/data")

    with pytest.raises(ProvisionError, match="Shorten data_disk_label"):
        plan_data_disk([{**BLANK, "path": "/dev/vdb"}], wanted, folder=Folder(**EMPTY), fstab=[])


def test_every_property_that_speaks_against_formatting_has_a_case() -> None:
    """A new field of a device, or of the folder, must be thought about here."""
    of_folder = {name for case in CASES.values() for name in case.get("folder", {})}
    fields = {name for case in CASES.values() for device in case["devices"] for name in device}

    assert fields == set(BLANK) | {"path"}
    assert of_folder == set(EMPTY)
