"""Over generated disks and folders, nothing that was there before and is not ours is ever gone."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from glob import glob
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from provision.environments.place import plan_environment, settle
from provision.errors import ProvisionError
from provision.roles.data_disk import DiskPlan, Folder, Wanted, plan_data_disk, refuse_entry_of_others
from tests.unit.playbooks.ansible_side import AnsibleSide

SHA256, LOCKS = "a" * 64, "b" * 64
MINICONDA_CLAIM, CLAIM = ".clusterwright-installer", ".clusterwright/record.json"
UNFINISHED = '{"unfinished": true}\n'
STATES = settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@st.composite
def disks(draw: st.DrawFn, path: str) -> dict[str, Any]:
    """A disk as module observe reports one; blank in a third of all cases."""
    blank = draw(st.integers(0, 2)) == 0
    kind = "" if blank else draw(st.sampled_from(["", "ext4", "xfs", "LVM2_member", "swap", "btrfs", "gpt"]))
    more = [] if blank else draw(st.lists(st.sampled_from(["gpt", "dos", "LVM2_member"]), max_size=1))
    of_user = not blank
    return {
        "path": path,
        "number": f"7:{ord(path[-1])}",
        "size": 12 << 30,
        "serial": draw(st.sampled_from(["", "S1"])),
        "is_partition": draw(st.booleans()),
        "partitions": [f"{path[5:]}1"] if of_user and draw(st.booleans()) else [],
        "holders": ["dm-0"] if of_user and draw(st.integers(0, 4)) == 0 else [],
        "is_swap": kind == "swap" and draw(st.booleans()),
        "is_read_only": of_user and draw(st.integers(0, 4)) == 0,
        "mounted_at": draw(st.sampled_from([[], ["/data"], ["/models"], ["/"]])) if of_user else [],
        "signatures": sorted({kind, *more} - {""}),
        "file_system": kind if kind != "gpt" else "",
        "label": draw(st.sampled_from(["", "cw-data", "photos"])) if kind in ("ext4", "xfs") else "",
        "uuid": draw(st.sampled_from(["u1", "u2"])) if kind else "",
        "ends_are_zero": blank,
        "damage": draw(st.sampled_from(["", "", "it has errors"])) if kind == "ext4" else "",
        "unreadable": "",
    }


@st.composite
def sites(draw: st.DrawFn) -> tuple[list[dict[str, Any]], Folder, list[list[str]], Wanted]:
    names = draw(st.lists(st.sampled_from(["/dev/vdb", "/dev/vdc", "/dev/vdd"]), unique=True))
    found = [draw(disks(name)) for name in names]
    here = [disk["number"] for disk in found if "/data" in disk["mounted_at"]]
    entries = 0 if here else draw(st.integers(0, 2))
    folder = Folder(
        numbers=here,
        root="/" if here else "",
        source="/dev/vdb" if here else "",
        file_system="ext4" if here else "",
        is_read_only=draw(st.integers(0, 5)) == 0,
        is_folder=True,
        is_there=True,
        entries=entries,
        names=["models", "jobs"][:entries],
    )
    lines = [["UUID=u1", "/data", "ext4", "defaults"], ["nas:/x", "/data", "nfs", "defaults"]]
    fstab = draw(st.lists(st.sampled_from(lines), max_size=1))
    device, serial, adopt = draw(
        st.sampled_from(
            [
                *(("", "", ""), ("", "S1", ""), ("none", "", ""), ("/dev/vdb", "", "")),
                *(("", "", adopt) for adopt in ("/dev/vdb", "UUID=u1", "LABEL=photos", "photos", "u2")),
            ]
        )
    )
    return (
        found,
        folder,
        fstab,
        Wanted(device=device, serial=serial, label="cw-data", mount_path="/data", adopt=adopt),
    )


@STATES
@given(site=sites())
def test_a_disk_that_holds_anything_is_neither_formatted_nor_hidden_nor_hides(
    site: tuple[list[dict[str, Any]], Folder, list[list[str]], Wanted],
) -> None:
    found, folder, fstab, wanted = site
    plan = planned(found, folder, fstab, wanted)
    if plan is None or plan.action == "leave":
        return

    disk = next(disk for disk in found if disk["path"] == plan.path)
    if plan.action == "format":
        assert not wanted.adopt
        assert disk["ends_are_zero"]
        assert not any(
            disk[what] for what in ("signatures", "partitions", "holders", "mounted_at", "is_swap")
        )
    if plan.action in ("format", "mount"):
        assert not folder.numbers
        assert not folder.entries
    if plan.action in ("keep", "mount"):
        assert disk["signatures"] == [disk["file_system"]]
        assert [other["uuid"] for other in found].count(disk["uuid"]) == 1 or plan.action == "keep"
    assert not any(fields[0].startswith("nas") for fields in fstab)


def planned(
    found: list[dict[str, Any]], folder: Folder, fstab: list[list[str]], wanted: Wanted
) -> DiskPlan | None:
    """None where it is refused: nothing is written then."""
    try:
        plan = plan_data_disk(found, wanted, folder=folder, fstab=fstab)
        refuse_entry_of_others(fstab, plan, wanted)
    except ProvisionError:
        return None
    return plan


@pytest.fixture(scope="module")
def side() -> Iterator[AnsibleSide]:
    with AnsibleSide() as side:
        yield side


PLACES = [
    "models/a.bin",
    "jobs/trainer/log",
    "miniconda3/bin/conda",
    "miniconda3/pkgs/x",
    "miniconda3/envs/llm/bin/python",
    "miniconda3/envs/llm/lib/added.py",
    "miniconda3/envs/other/o",
    *(f"miniconda3/envs/.clusterwright-llm/{name}/f" for name in ("previous", "begun", "build", "arriving")),
    *(f".clusterwright-miniconda3/{name}/f" for name in ("previous", "begun", "build")),
    "miniconda3/envs/llm.before-1/f",
]
MINICONDA_RECORDS = st.sampled_from(["", UNFINISHED, SHA256 + "\n", "c" * 64 + "\n"])
RECORDS = st.sampled_from(["", UNFINISHED, f'{{"built_from": "{LOCKS}"}}', '{"built_from": "old"}'])


@STATES
@given(
    places=st.lists(st.sampled_from(PLACES), unique=True),
    miniconda_record=MINICONDA_RECORDS,
    record=RECORDS,
    may_rename=st.booleans(),
    fails=st.sampled_from(["", "miniconda", "conda_env"]),
    runs=st.integers(1, 3),
)
def test_what_lies_in_the_folder_is_still_somewhere_in_it(
    places: list[str],
    miniconda_record: str,
    record: str,
    may_rename: bool,
    fails: str,
    runs: int,
    side: AnsibleSide,
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        for number, place in enumerate(places):
            write(data / place, f"theirs {number}")
        for place, text in (
            (f"miniconda3/{MINICONDA_CLAIM}", miniconda_record),
            (f"miniconda3/envs/llm/{CLAIM}", record),
        ):
            if text and (data / place).parents[1 if "record.json" in place else 0].is_dir():
                write(data / place, text)
        before = {f"theirs {number}" for number in range(len(places))}

        for _ in range(runs):
            if install_miniconda(side, data, may_rename, fails == "miniconda"):
                build_environment(side, data, may_rename, fails == "conda_env")

        after = {path.read_text() for path in data.rglob("*") if path.is_file()}
        assert before <= after, f"gone: {[places[int(name.split()[1])] for name in before - after]}"


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def role_says(side: AnsibleSide, data: Path) -> Mapping[str, Any]:
    """What role miniconda works out from the folder, by its own variables."""
    prefix = data / "miniconda3"
    marker = prefix / MINICONDA_CLAIM
    files: dict[str, Any] = {path: {"text": ""} for path in glob(f"{prefix}/envs/*")}
    files[str(marker)] = {"text": marker.read_text()} if marker.is_file() else None
    names = "\n".join(sorted(path.name for path in prefix.iterdir())) if prefix.is_dir() else ""
    observed = {"files": files, "commands": {"holds": {"stdout": names}}}
    asked = ["installed", "is_complete", "is_foreign", "begins", "environments"]
    said = side.role_says(
        "miniconda",
        [f"miniconda_{name}" for name in asked],
        {"miniconda_prefix": str(prefix), "miniconda_observed": observed},
    )
    return {name: said[f"miniconda_{name}"] for name in asked}


def install_miniconda(side: AnsibleSide, data: Path, may_rename: bool, fails: bool) -> bool:
    """As tasks/{change,recover,install,keep}.yml; whether it went well."""
    prefix, previous = data / "miniconda3", data / ".clusterwright-miniconda3" / "previous"

    def apply(state: str) -> dict[str, Any]:
        return side.set_aside(prefix, MINICONDA_CLAIM, state)

    said = role_says(side, data)
    if previous.exists():
        apply("kept" if said["is_complete"] or said["environments"] else "back")
        said = role_says(side, data)
    if said["is_foreign"] and not may_rename:
        return False
    if said["installed"] == SHA256:
        return True
    try:
        begun = apply("begun") if said["begins"] else {}
    except OSError:
        return False  # it fails in words, and nothing was moved
    write(prefix / "bin" / "ours", "ours")
    if fails:
        if said["begins"]:
            apply("back")
        return False
    write(prefix / MINICONDA_CLAIM, SHA256 + "\n")
    if begun.get("aside"):
        apply("kept")
    return True


def report_of(prefix: Path) -> dict[str, Any]:
    """As environment_digest.py reports it: what no record names was added."""
    record = json.loads((prefix / CLAIM).read_text()) if (prefix / CLAIM).is_file() else {}
    held = sorted(path.name for path in prefix.iterdir()) if prefix.is_dir() else []
    added = [path for path in prefix.rglob("*") if path.is_file() and path.read_text().startswith("theirs")]
    return {
        "prefix": str(prefix),
        "exists": prefix.is_dir(),
        "link": "",
        "holds": held,
        "occupied": bool(held),
        "unfinished": bool(record.get("unfinished")),
        "built_from": record.get("built_from", ""),
        "recorded": "d" if record.get("built_from") else "",
        "digest": "other" if added else "d",
        "different": len(added),
        "differences": [str(path) for path in added],
        "conda": 0,
        "added": {},
        "gone": {},
    }


def build_environment(side: AnsibleSide, data: Path, may_rename: bool, fails: bool) -> None:
    """As role conda_env on one node: recover.yml, build.yml, settle.yml."""
    prefix = data / "miniconda3" / "envs" / "llm"
    previous = prefix.with_name(".clusterwright-llm") / "previous"

    def apply(state: str, at_once: bool = False) -> None:
        side.set_aside(prefix, CLAIM, state, at_once=at_once)

    def decide(is_proven: bool) -> None:
        apply(settle(report_of(previous), prefix=str(prefix), proven=is_proven, digest="").state)

    report = report_of(prefix)
    if report["unfinished"] or previous.exists():
        apply("back")
        report = report_of(prefix)
        if previous.exists():
            decide(report["recorded"] != "" and report["digest"] == report["recorded"])
    plan = plan_environment(report, built_from=LOCKS, digest="", rename_foreign=may_rename)
    if plan.problem or not plan.reason:
        return
    try:
        apply("begun")
    except OSError:
        return
    write(prefix / "bin" / "ours", "ours")
    if fails:
        apply("back", at_once=True)
        return
    write(prefix / CLAIM, json.dumps({"built_from": LOCKS}))
    if report["occupied"]:
        decide(True)
