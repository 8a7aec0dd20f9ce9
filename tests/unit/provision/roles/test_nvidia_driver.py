"""Modules go by the cards, packages by what apt offers, and nobody else's driver is replaced unasked."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from provision.errors import BadInput
from provision.roles.nvidia_driver import (
    Generation,
    Plan,
    Tables,
    Wanted,
    device_numbers,
    has_switch,
    modules_for,
    names_to_ask,
    plan,
)

ROOT = Path(__file__).parents[4]
ROLE = ROOT / "playbooks" / "roles" / "nvidia_driver"
VARIABLES = yaml.safe_load((ROLE / "vars" / "main.yml").read_text())
TABLES = Tables(
    generations=[Generation(**known) for known in VARIABLES["nvidia_driver_generations"]],
    sets=VARIABLES["nvidia_driver_sets"],
)
A10 = "00:05.0 3D controller [0302]: NVIDIA Corporation GA102GL [A10] [10de:2236] (rev a1)"
KERNEL = "6.8.0-1015-aws"
LINE = re.compile(r"^(\S+) .*?\[([0-9a-f]{4})\]: .*\[([0-9a-f]{4}):([0-9a-f]{4})\]", re.MULTILINE)


def cases(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load(
        (ROOT / "tests" / "cases" / "nvidia_driver" / f"{name}.yml").read_text()
    )
    return found


def by_name(case: dict[str, Any]) -> str:
    return str(case["name"])


def on_bus(lspci: str) -> dict[str, str]:
    """What /sys says of the devices that `lspci -nn` lists."""
    files = {}
    for address, kind, vendor, device in LINE.findall(lspci):
        folder = f"/sys/bus/pci/devices/0000:{address}"
        files |= {f"{folder}/class": f"0x{kind}00\n", f"{folder}/vendor": f"0x{vendor}\n"}
        files[f"{folder}/device"] = f"0x{device}\n"
    return files


def wanted(case: dict[str, Any]) -> Wanted:
    return Wanted(
        version=case.get("version", "580"),
        modules=case.get("asked", "auto"),
        packages=case.get("chosen", ()),
        may_replace=case.get("replace", False),
        may_reboot=case.get("may_reboot", False),
    )


def answer(text: str = "", rc: int = 0) -> dict[str, Any]:
    return {"rc": rc, "stdout": text.strip(), "stderr": ""}


def planned(case: dict[str, Any]) -> Plan:
    files = on_bus(case.get("lspci", A10))
    if "loaded" in case:
        files["/sys/module/nvidia/version"] = f"{case['loaded']}\n"
    if "preferences" in case:
        files["/etc/apt/preferences.d/own"] = case["preferences"]
    if case.get("nouveau"):
        files["/sys/module/nouveau/refcnt"] = "4\n"
    commands = {
        "kernel": answer(KERNEL),
        "held": answer(case.get("held", "")),
        "installed": answer(case.get("installed", "")),
        "offered": answer(case.get("offered", "")),
        "dkms": answer(case.get("dkms", "")),
        "secure_boot": answer(case.get("secure_boot", ""), 0 if "secure_boot" in case else 127),
        "runfile": answer(rc=0 if case.get("runfile") else 1),
        "ours": answer(case.get("ours", "")),
        "busy": answer(case.get("busy", ""), 0 if "busy" in case else 127),
        "fabric": answer(case.get("fabric", "inactive"), 3),
    }
    return plan(files, commands, wanted(case), TABLES)


@pytest.mark.parametrize("case", cases("modules"), ids=by_name)
def test_modules_go_by_the_cards(case: dict[str, Any]) -> None:
    files = on_bus(case["lspci"])

    assert has_switch(files) is case.get("switch", False)
    if "refused" in case:
        with pytest.raises(BadInput) as refused:
            modules_for(device_numbers(files), wanted(case), TABLES.generations)
        assert all(words in str(refused.value) for words in case["refused"])
    else:
        assert modules_for(device_numbers(files), wanted(case), TABLES.generations) == case["modules"]


@pytest.mark.parametrize("case", cases("packages"), ids=by_name)
def test_packages_are_the_first_set_that_apt_offers_in_one_version(case: dict[str, Any]) -> None:
    found = planned(case)

    assert list(found.packages) == case.get("packages", [])
    assert found.is_settled is case.get("settled", False)
    for field in ("problem", "unknown"):
        said = getattr(found, field)
        assert bool(said) is (field in case), said
        assert all(words in said for words in case.get(field, ()))


@pytest.mark.parametrize("case", cases("steps"), ids=by_name)
def test_what_is_left_is_said_and_why(case: dict[str, Any]) -> None:
    ours = {"installed": "installed nvidia-open-580 580.95.05-0ubuntu1", "ours": "nvidia-open-580"}

    found = planned({**ours, **case})

    assert (found.version, list(found.packages)) == ("580.95.05", [])
    assert found.step == case["step"]
    assert all(words in found.why for words in case.get("why", ()))
    assert bool(found.problem) is ("problem" in case), found.problem
    assert all(words in found.problem for words in case.get("problem", ()))


def test_the_fabric_manager_has_to_run_where_there_are_switches() -> None:
    case = next(case for case in cases("packages") if "in the driver's version" in case["name"])
    there = "installed nvidia-open-580 580.95.05-0ubuntu1\ninstalled nvidia-fabricmanager-580 580.95.05-1"
    case = {**case, "installed": there, "ours": "nvidia-open-580", "loaded": "580.95.05"}

    assert planned(case).step == "fabric"
    assert planned({**case, "fabric": "active"}).is_settled


def test_a_node_without_a_card_is_left_alone() -> None:
    found = planned({"lspci": "00:02.0 VGA compatible controller [0300]: Red Hat [1af4:1050]"})

    assert (found.cards, found.is_settled) == (0, True)


def test_apt_is_asked_about_every_package_of_every_set_by_its_whole_name() -> None:
    names = names_to_ask(wanted({"version": "580.95.05"}), TABLES)

    assert {"nvidia-headless-580-server-open", "nvidia-open", "libcuda1", "nvidia-fabricmanager-580"} <= {
        *names
    }
    assert not any("{" in name for name in names)
    assert "our-driver" in names_to_ask(wanted({"chosen": ["our-driver"]}), TABLES)
