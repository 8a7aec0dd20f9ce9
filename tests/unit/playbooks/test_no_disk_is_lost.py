"""Over generated disks, none that holds anything is formatted, hidden, or hides something."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from provision.errors import ProvisionError
from provision.roles.data_disk import DiskPlan, Folder, Wanted, plan_data_disk, refuse_entry_of_others

STATES_OF_EACH = 10
OURS = {
    "signatures": ["ext4"],
    "file_system": "ext4",
    "label": "cw-data",
    "uuid": "u1",
    "ends_are_zero": False,
}
THEIRS = {**OURS, "label": "photos"}
BLANK: dict[str, Any] = {
    "signatures": [],
    "file_system": "",
    "label": "",
    "uuid": "",
    "ends_are_zero": True,
    "damage": "",
    "partitions": [],
    "holders": [],
    "mounted_at": [],
    "is_swap": False,
    "is_read_only": False,
    "unreadable": "",
    "is_partition": False,
}
QUIET = {name: value for name, value in BLANK.items() if name not in OURS}
MOUNTED = {"numbers": ["7:98"], "root": "/", "source": "/dev/vdb", "is_read_only": False, "is_noexec": False}
EMPTY = {
    "numbers": [],
    "entries": 0,
    "names": [],
    "is_there": True,
    "is_folder": True,
    "is_noexec": False,
}
ADOPT = {"device": "", "serial": "", "adopt": "/dev/vdb"}
NAMED = {"device": "/dev/vdb", "serial": "", "adopt": ""}
ALONE = {"names": ["/dev/vdb"]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What a node reports, and what the inventory asks for."""

    disks: list[dict[str, Any]]
    folder: Folder
    fstab: list[list[str]]
    wanted: Wanted


def aim(
    disk: Mapping[str, Any], folder: Mapping[str, Any], wanted: Mapping[str, Any], **more: Any
) -> dict[str, Any]:
    """What leads to a decision: facts of /dev/vdb, of the folder, of the inventory; all else is drawn."""
    return {"disk": disk, "folder": folder, "wanted": wanted, "fstab": [], **more}


def adopting(**facts: Any) -> dict[str, Any]:
    """An ext4 of somebody is to be adopted, and one fact speaks against it."""
    return aim({**QUIET, **THEIRS, **facts}, EMPTY, ADOPT, **ALONE)


FSTAB_OF_OTHERS = ["nas:/x", "/data", "nfs", "defaults"]
NO_DISK = {"device": "none", "serial": "", "adopt": ""}
# What leads to each plan.
PLANS: dict[str, dict[str, Any]] = {
    "format": aim(BLANK, EMPTY, NAMED),
    "mount": aim({**QUIET, **OURS}, EMPTY, NAMED, **ALONE),
    "keep": aim({**QUIET, **OURS, "mounted_at": ["/data"]}, MOUNTED, NAMED, **ALONE),
    "adopt, mount": adopting(),
    "adopt, keep": aim({**QUIET, **THEIRS, "mounted_at": ["/data"]}, MOUNTED, ADOPT, **ALONE),
    "leave": aim({}, {**EMPTY, "is_read_only": False}, NO_DISK),
}
# What leads to each refusal, by a pattern of what it says.
REFUSALS: dict[str, dict[str, Any]] = {
    "has [0-9]+ bytes, ext4 takes": aim({}, {}, {"label": "a-name-of-17-bytes"}),
    "is no folder, and leads to none": aim({}, {"is_there": True, "is_folder": False}, {}),
    "is mounted there read only": aim({}, {**MOUNTED, "is_read_only": True}, NO_DISK),
    "no program runs from /data": aim({}, {**MOUNTED, "is_noexec": True}, NO_DISK),
    "mounts something there, which is not": aim({}, EMPTY, NO_DISK, fstab=[FSTAB_OF_OTHERS]),
    "use .* as the data disk: it holds": aim({**QUIET, **THEIRS}, EMPTY, NAMED),
    "is a volume of LVM": aim({}, EMPTY, {**ADOPT, "adopt": "/dev/dm-0"}),
    "have that name": aim(
        {**QUIET, **THEIRS}, EMPTY, {**ADOPT, "adopt": "photos"}, others={**QUIET, **THEIRS, "uuid": "u3"}
    ),
    "find the disk to adopt, .*: there is none": aim({}, EMPTY, {**ADOPT, "adopt": "UUID=u9"}),
    "a copy of it": aim({**QUIET, **THEIRS}, EMPTY, ADOPT, others={**QUIET, **THEIRS}),
    "cannot be read": adopting(unreadable="Input/output error"),
    "has the partitions": adopting(partitions=["vdb1"]),
    "is (a member of|held by|encrypted)": adopting(holders=["dm-0"]),
    "is swap in use": adopting(is_swap=True),
    "and what is adopted is": adopting(signatures=["btrfs"], file_system="btrfs"),
    "has several signatures": adopting(signatures=["ext4", "gpt"]),
    "is write protected": adopting(is_read_only=True),
    "the system itself lives on it": adopting(mounted_at=["/"]),
    "is mounted at /models": adopting(mounted_at=["/models"]),
    "is damaged": adopting(damage="it has errors"),
    "a folder of it, /sub, is mounted": aim(
        {**QUIET, **THEIRS, "mounted_at": ["/data"]}, {**MOUNTED, "root": "/sub"}, ADOPT, **ALONE
    ),
    "its line of /etc/fstab says": aim(
        {**QUIET, **THEIRS}, EMPTY, ADOPT, fstab=[["UUID=u1", "/data", "ext4", "ro,noauto"]], **ALONE
    ),
    "find the data disk by .*: 0 such": aim({**QUIET, **THEIRS}, EMPTY, {**NAMED, "device": ""}, **ALONE),
    "find the data disk by .*: [2-9] such": aim(BLANK, EMPTY, {**NAMED, "device": ""}, others=BLANK),
    "gives that folder to another device": aim(BLANK, EMPTY, NAMED, fstab=[FSTAB_OF_OTHERS]),
    "another device .* is mounted there": aim(BLANK, {**MOUNTED, "numbers": ["7:1"]}, NAMED),
    "entries, which the mount would hide": aim(BLANK, {**EMPTY, "entries": 2, "names": ["a", "b"]}, NAMED),
}
DECISIONS = PLANS | REFUSALS
# What makes a blank disk one that is not: the check that it is blank has to see each alone.
SPOILT = (
    *({"ends_are_zero": False}, {"signatures": ["swap"]}, {"signatures": ["gpt"]}, {"partitions": ["vdb1"]}),
    *({"holders": ["dm-0"]}, {"mounted_at": ["/models"]}, {"is_swap": True}, {"is_read_only": True}),
    {"unreadable": "Input/output error"},
)


@st.composite
def disks(draw: st.DrawFn, path: str) -> dict[str, Any]:
    """A disk as module `observe` reports one: blank, blank but for one fact, or with something on it."""
    number, size = f"7:{ord(path[-1])}", 12 << 30
    disk = {
        "path": path,
        "number": number,
        "size": size,
        "serial": draw(st.sampled_from(["", "S1"])),
        **BLANK,
    }
    kind = draw(st.sampled_from(["blank", "spoilt", "ours", "theirs", "more"]))
    if kind == "spoilt":
        return {**disk, **draw(st.sampled_from(SPOILT))}
    if kind == "blank":
        return disk
    disk |= OURS if kind == "ours" else THEIRS
    disk |= {"uuid": draw(st.sampled_from(["u1", "u2", "u4", "u5"])), "is_partition": draw(st.booleans())}
    if kind == "more":
        disk |= draw(st.sampled_from(SPOILT))
    return disk


@st.composite
def sites(draw: st.DrawFn, aim: Mapping[str, Any]) -> Site:
    names = aim.get("names") or draw(st.sampled_from([["/dev/vdb", "/dev/vdc"], ["/dev/vdc", "/dev/vdb"]]))
    found = [draw(disks(name)) for name in names]
    for disk in found:
        disk |= aim.get("disk", {}) if disk["path"] == "/dev/vdb" else aim.get("others", {})
    here = [disk["number"] for disk in found if "/data" in disk["mounted_at"]]
    entries = 0 if here else draw(st.sampled_from([0, 0, 2]))
    folder = {
        "numbers": here,
        "root": "/",
        "source": "/dev/vdb",
        "file_system": "ext4",
        "is_folder": True,
        "is_read_only": draw(st.integers(0, 5)) == 0,
        "is_noexec": draw(st.integers(0, 5)) == 0,
        "is_there": True,
        "entries": entries,
        "names": ["models", "jobs"][:entries],
    }
    lines = [["UUID=u1", "/data", "ext4", "defaults"], FSTAB_OF_OTHERS]
    wanted = {"device": "", "serial": "", "label": "cw-data", "mount_path": "/data", "adopt": ""}
    wanted["programs"] = "/data/miniconda3/envs/llm"
    wanted |= draw(
        st.sampled_from(
            [
                *({}, {"serial": "S1"}, {"device": "none"}, {"device": "/dev/vdb"}),
                *({"adopt": name} for name in ("/dev/vdb", "UUID=u1", "LABEL=photos", "photos", "u2")),
            ]
        )
    )
    return Site(
        disks=found,
        folder=Folder(**{**folder, **aim.get("folder", {})}),
        fstab=aim.get("fstab", draw(st.lists(st.sampled_from(lines), max_size=1))),
        wanted=Wanted(**{**wanted, **aim.get("wanted", {})}),
    )


def test_a_disk_that_holds_anything_is_neither_formatted_nor_hidden_nor_hides() -> None:
    reached: Counter[str] = Counter()

    @settings(max_examples=STATES_OF_EACH, deadline=None, derandomize=True)
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        for name in (*DECISIONS, *["as it comes"] * 20):
            site = data.draw(sites(DECISIONS.get(name, {})))
            plan, said = planned(site)
            reached[decision(plan, said)] += 1
            if plan is not None and plan.action != "leave":
                judge(plan, site)

    check()

    assert reached.total() >= 300
    assert {name: reached[name] for name in DECISIONS if reached[name] < 5} == {}
    assert set(reached) <= set(DECISIONS)


def planned(site: Site) -> tuple[DiskPlan | None, str]:
    """No plan where it is refused, and what is said then: nothing is written."""
    try:
        plan = plan_data_disk(site.disks, site.wanted, folder=site.folder, fstab=site.fstab)
        refuse_entry_of_others(site.fstab, plan, site.wanted)
    except ProvisionError as e:
        return None, str(e)
    return plan, ""


def decision(plan: DiskPlan | None, said: str) -> str:
    if plan is not None:
        return f"{'adopt, ' if plan.is_adopted else ''}{plan.action}"
    return next((name for name in REFUSALS if re.search(name, said)), said)


def judge(plan: DiskPlan, site: Site) -> None:
    disk = next(disk for disk in site.disks if disk["path"] == plan.path)
    if plan.action == "format":
        assert not site.wanted.adopt
        assert {name: disk[name] for name in BLANK if name != "is_partition"} == {
            name: value for name, value in BLANK.items() if name != "is_partition"
        }
    if plan.action in ("format", "mount"):
        assert not site.folder.numbers
        assert not site.folder.entries
        assert not disk["mounted_at"]
    if plan.action in ("keep", "mount"):
        assert disk["signatures"] == [disk["file_system"]]
        assert [other["uuid"] for other in site.disks].count(disk["uuid"]) == 1 or plan.action == "keep"
    if plan.action == "keep":
        assert site.folder.numbers == [disk["number"]]
    assert not any(fields[0].startswith("nas") for fields in site.fstab)
