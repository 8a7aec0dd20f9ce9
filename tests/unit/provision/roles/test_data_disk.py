"""The disk is chosen and formatted only where nothing speaks against it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from provision.errors import ProvisionError
from provision.roles.data_disk import DiskPlan, Wanted, plan_data_disk, refuse_entry_of_others

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
    "unreadable": "",
}


def plan(case: dict[str, Any]) -> Any:
    wanted = Wanted(
        device=case.get("device", ""), serial=case.get("serial", ""), label="cw-data", mount_path="/data"
    )
    devices = [{**BLANK, **device} for device in case["devices"]]
    return plan_data_disk(devices, wanted, mounted=case.get("mounted", []), entries=case.get("entries", 0))


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


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.get("kept")])
def test_nobody_is_told_to_blank_what_may_be_in_use_or_part_of_something(name: str) -> None:
    with pytest.raises(ProvisionError) as refusal:
        plan(CASES[name])

    assert "wipefs" not in str(refusal.value)
    assert "blkdiscard" not in str(refusal.value)


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
        plan_data_disk([{**BLANK, "path": "/dev/vdb"}], wanted, mounted=[], entries=0)


def test_every_property_that_speaks_against_formatting_has_a_case() -> None:
    """A new field of a device must be thought about here."""
    fields = {name for case in CASES.values() for device in case["devices"] for name in device}

    assert fields == set(BLANK) | {"path"}
