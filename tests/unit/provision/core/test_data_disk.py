"""The disk is chosen and formatted only where nothing speaks against it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from provision.core.data_disk import Wanted, plan_data_disk
from provision.errors import ProvisionError

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


@pytest.mark.parametrize("label", ["", "seventeen-letters"])
def test_a_label_that_ext4_would_cut_off_is_refused(label: str) -> None:
    wanted = Wanted(device="", serial="", label=label, mount_path="/data")

    with pytest.raises(ProvisionError, match="Shorten data_disk_label"):
        plan_data_disk([{**BLANK, "path": "/dev/vdb"}], wanted, mounted=[], entries=0)


def test_every_property_that_speaks_against_formatting_has_a_case() -> None:
    """A new field of a device must be thought about here."""
    fields = {name for case in CASES.values() for device in case["devices"] for name in device}

    assert fields == set(BLANK) | {"path"}
