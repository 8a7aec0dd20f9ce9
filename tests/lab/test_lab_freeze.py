"""A lab that was frozen comes back as it was, as often as one likes; half a snapshot is never used."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from provision.lab import lab as labs
from provision.lab import record, snapshot
from provision.lab.fault import injection
from provision.lab.fault import record as faults
from provision.lab.fault.catalogue import CATALOGUE
from provision.lab.layout import folder_of
from provision.lab.lock import hold
from provision.lab.shape import Direction, Shape
from tests.lab.conftest import Finished, LabUnderTest, provision
from tests.lab.traces import killed, traces

NAME = "frz"
PROVEN = "frz-proven"
UP = ("lab", "up", "--name", NAME, "--subnet", "10.77.212.0/24", "--nodes", "2")
RESTORE = ("lab", "up", "--from", PROVEN, "--name", NAME)
FREEZE_ANEW = ("lab", "freeze", "frz-half", "--name", NAME)
DOWN = ("lab", "down", "--name", NAME)
AGAIN = ("lab", "up", "--name", NAME)

# `provision` on a machine whose kernel has no XFS.
WITHOUT_XFS = """import runpy
from provision.lab import snapshot
snapshot.has_xfs = lambda: False
runpy.run_module("provision.cli", run_name="__main__")"""
PREPARE = """set -e; echo kept >/root/file; rm /etc/motd; mkdir -m 0700 /root/secret
mkfs.ext4 -q /dev/vdb; mkdir -p /data; mount /dev/vdb /data; echo kept >/data/file"""
CHANGE = "set -e; rm /root/file; echo new >/root/other; mount /dev/vdb /mnt; rm /mnt/file; sync"
FACTS = """cat /root/file /etc/machine-id /etc/ssh/ssh_host_ed25519_key.pub; stat -c '%a' /root/secret
test ! -e /etc/motd && test ! -e /root/other && mount -o ro /dev/vdb /mnt && cat /mnt/file && umount /mnt"""


def under_test() -> LabUnderTest:
    found = record.load(folder_of(NAME))
    assert found is not None
    return LabUnderTest(lab=found)


def remove(name: str) -> None:
    if name in snapshot.names():
        provision("lab", "snapshot", "remove", name)


def state(lab: LabUnderTest) -> dict[str, object]:
    """What a restored lab must have in common with the frozen one."""
    secret = lab.lab.folder / "secrets" / "cluster_key"
    return {
        "te1": lab.out("te1", FACTS),
        "hosts": lab.out("te1", "cat /etc/hosts"),
        "rules": lab.out("te2", "nft list ruleset"),
        "known hosts": lab.lab.known_hosts.read_text(),
        "secret": (secret.read_text(), secret.stat().st_mode & 0o777),
        "inventory": (lab.inventory / "group_vars/all/mine.yml").read_text(),
        "faults": [faults.load(node) for node in lab.lab.nodes],
        "sectors": lab.out("te1", "blockdev --getss --getsize64 /dev/vdb"),
        "cables": {node.name: node.shape for node in labs.status(lab.lab)},
    }


@pytest.fixture(scope="module")
def frozen(lab_machine: None) -> Iterator[dict[str, object]]:
    """The state of a lab of which there is a snapshot; it is up or down, as the test before left it."""
    with hold(f"the tests on lab {NAME}", wait_seconds=500):
        provision(*DOWN)
        for name in (PROVEN, "frz-half"):
            remove(name)
        provision(*UP)
        lab = under_test()
        lab.run("te1", PREPARE)
        record.write_file(lab.lab.folder / "secrets" / "cluster_key", "secret\n", mode=0o600)
        record.write_file(lab.inventory / "group_vars/all/mine.yml", "mine: 1\n")
        labs.shape(lab.lab, lab.lab.nodes[1], rate="200mbit", direction=Direction.both)
        for fault, node in zip(("loopback-name", "firewall-ports"), lab.lab.nodes, strict=True):
            injection.inject(lab.lab, node, CATALOGUE[fault], peer=None, value=None)
        lab.run("te1", "umount /data")
        found = state(lab)
        lab.provision("freeze", PROVEN)
        assert state(lab) == found, "a lab is as before when it was frozen"
        yield found
        provision(*DOWN)
        for name in (PROVEN, "frz-half"):
            remove(name)


@pytest.fixture
def before(frozen: dict[str, object]) -> set[str]:
    """What is there while the lab is down."""
    if folder_of(NAME).exists():
        provision(*DOWN)
    return traces(NAME)


def test_what_was_frozen_comes_back_and_what_was_done_since_is_gone(frozen: dict[str, object]) -> None:
    assert "127.0.1.1" in str(frozen["hosts"])
    assert "32768-60999" in str(frozen["rules"])
    assert frozen["cables"] == {"te1": Shape(), "te2": Shape(ingress="200mbit", egress="200mbit")}
    provision(*DOWN)

    provision(*RESTORE)
    lab = under_test()
    first = state(lab)
    lab.run("te1", CHANGE)
    injection.clear(lab.lab, lab.lab.nodes[1])
    labs.shape(lab.lab, lab.lab.nodes[1], rate=None, direction=Direction.both)
    (lab.lab.folder / "secrets" / "cluster_key").write_text("other\n")
    lab.provision("reset")
    reset = state(lab)
    lab.run("te1", CHANGE)
    provision(*DOWN)
    provision(*RESTORE)

    assert first == frozen
    assert reset == frozen
    assert state(under_test()) == frozen


def test_down_after_a_restore_leaves_nothing_but_the_snapshot(before: set[str]) -> None:
    provision(*RESTORE)
    during = traces(NAME)

    provision(*DOWN)

    assert any(f"/{PROVEN}/files.xfs" in trace for trace in during - before)
    assert traces(NAME) - before == set()
    assert PROVEN in snapshot.names()


def but_one_long(steps: Sequence[str], kept: str) -> list[Any]:
    """The gate takes one step, `make long` the others: each is a lab that goes down and comes back."""
    return [pytest.param(step, marks=() if step == kept else pytest.mark.long) for step in steps]


RESTORE_STEPS = [
    "mount snapshot",
    "restore keys and secrets",
    "make files te2",
    "connect te1",
    "inject faults",
]


@pytest.mark.parametrize("step", but_one_long(RESTORE_STEPS, "restore keys and secrets"))
def test_after_a_killed_restore_the_next_up_ends_it_and_down_leaves_nothing(
    frozen: dict[str, object], before: set[str], step: str
) -> None:
    killed(RESTORE, step)

    provision(*AGAIN)
    restored = state(under_test())
    provision(*DOWN)

    assert restored == frozen
    assert traces(NAME) - before == set()


@pytest.mark.long
@pytest.mark.parametrize("step", RESTORE_STEPS[:3:2])
def test_down_after_a_killed_restore_leaves_nothing(before: set[str], step: str) -> None:
    killed(RESTORE, step)

    provision(*DOWN)

    assert traces(NAME) - before == set()


FREEZE_STEPS = [
    "shut down te1 te2",
    "freeze: copy te2",
    "freeze: write to disk",
    "wait for sshd te1",
]


@pytest.mark.parametrize("step", but_one_long(FREEZE_STEPS, "freeze: write to disk"))
def test_after_a_killed_freeze_there_is_no_snapshot_or_a_whole_one_and_the_lab_comes_back(
    frozen: dict[str, object], before: set[str], step: str
) -> None:
    whole = step == "wait for sshd te1"
    provision(*RESTORE)
    killed(FREEZE_ANEW, step)

    listed = [row["name"] for row in json.loads(provision("lab", "snapshot", "list", "--json").stdout)]
    refused = provision("lab", "up", "--from", "frz-half", "--name", NAME, check=False)
    provision(*AGAIN)
    after = state(under_test())
    provision(*DOWN)
    remove("frz-half")

    assert ("frz-half" in listed, PROVEN in listed) == (whole, True)
    assert refused.returncode == 2
    assert after == frozen
    assert traces(NAME) - before == set()
    assert not snapshot.half_of(NAME).exists()


def test_a_restored_lab_can_be_frozen_again_with_what_it_changed(before: set[str]) -> None:
    provision(*RESTORE)
    under_test().run("te1", "rm /root/file && echo second >/root/second")
    provision("lab", "freeze", "frz-half", "--name", NAME)
    provision(*DOWN)

    provision("lab", "up", "--from", "frz-half", "--name", NAME)
    found = under_test().out("te1", "ls /root; mount /dev/vdb /mnt && cat /mnt/file")
    provision(*DOWN)
    remove("frz-half")

    assert found.split() == ["second", "secret", "kept"]


def test_where_no_file_system_shares_blocks_disks_are_copied_and_that_is_said(
    frozen: dict[str, object], before: set[str]
) -> None:
    provision(*RESTORE)

    words = [sys.executable, "-c", WITHOUT_XFS, *FREEZE_ANEW]
    freezing = subprocess.run(words, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
    kept = sorted(path.name for path in snapshot.folder_of("frz-half").iterdir())
    provision(*DOWN)
    restored = provision("lab", "up", "--from", "frz-half", "--name", NAME)
    found = state(under_test())
    provision(*DOWN)
    remove("frz-half")

    assert "each `up --from` will copy the disks" in freezing.stderr
    assert kept == ["files", "snapshot.json"]
    assert "cannot share blocks" in restored.stderr
    assert found == frozen
    assert traces(NAME) - before == set()


def test_another_lab_that_began_meanwhile_does_not_hold_the_snapshot(before: set[str]) -> None:
    other = ("--name", "frz2")
    provision(*RESTORE)
    provision("lab", "up", *other, "--subnet", "10.77.213.0/24", "--nodes", "1")
    try:
        provision(*DOWN)
        left = traces(NAME) - before
    finally:
        provision("lab", "down", *other)

    assert not [trace for trace in left if NAME + "/" in trace or PROVEN in trace]


def test_secrets_in_a_snapshot_are_roots_alone(frozen: dict[str, object]) -> None:
    folder = snapshot.folder_of(PROVEN)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (folder.parent, folder, *folder.iterdir())}

    assert modes == {"snapshots": 0o700, PROVEN: 0o700, "snapshot.json": 0o600, "files.xfs": 0o600}


REFUSED = [
    (("lab", "up", "--from", PROVEN, "--name", "other"), f"--from {PROVEN} --name {NAME}"),
    ((*RESTORE, "--subnet", "10.77.214.0/24"), "10.77.212.0/24"),
    ((*RESTORE, "--nodes", "1"), "only nodes can be added"),
    ((*RESTORE, "--image", "/nowhere"), "one of --from, --image and --release"),
    ((*RESTORE, "--release", "trixie"), "one of --from, --image and --release"),
    (("lab", "up", "--name", NAME, "--release", "potato"), "no potato beside it is known"),
    (("lab", "up", "--from", "frz-none", "--name", NAME), "provision lab freeze frz-none"),
    (("lab", "freeze", "Bad Name", "--name", NAME), "1 to 32"),
    (("lab", "snapshot", "remove", "frz-none"), "provision lab freeze frz-none"),
]


@pytest.mark.parametrize(("words", "said"), REFUSED, ids=[" ".join(words) for words, _ in REFUSED])
def test_what_cannot_be_is_refused_with_words(before: set[str], words: tuple[str, ...], said: str) -> None:
    if words[1] == "freeze":
        provision(*RESTORE)

    refused = provision(*words, check=False)
    provision(*DOWN)

    assert refused.returncode == 2
    assert said in plain(refused)
    assert traces(NAME) - before == set()


def test_what_is_in_use_stays_and_what_cannot_be_kept_is_named(before: set[str]) -> None:
    provision(*RESTORE)
    lab = under_test()

    in_use = provision("lab", "snapshot", "remove", PROVEN, check=False)
    taken = lab.provision("freeze", PROVEN, check=False)
    text = '[{"fault": "rank-killed", "peer": null, "value": ""}]'
    (lab.lab.nodes[0].folder / "faults.json").write_text(text)
    ranks = lab.provision("freeze", "frz-half", check=False)
    on = {name: node["state"] for name, node in lab.status().items()}
    provision(*DOWN)
    provision(*UP)
    strange = provision(*RESTORE, check=False)
    provision(*DOWN)

    assert [each.returncode for each in (in_use, taken, ranks, strange)] == [2, 2, 2, 2]
    assert f"provision lab down --name {NAME}" in plain(in_use)
    assert f"provision lab snapshot remove {PROVEN}" in plain(taken)
    assert "provision lab fault clear te1" in plain(ranks)
    assert on == {"te1": "running", "te2": "running"}
    assert f"provision lab down --name {NAME}" in plain(strange)


def test_a_restored_lab_gets_more_nodes_which_are_blank(before: set[str]) -> None:
    provision(*RESTORE, "--nodes", "3")
    lab = under_test()

    blank = lab.run("te3", "blkid -p /dev/vdb", check=False).returncode
    provision(*DOWN)

    assert blank == 2
    assert traces(NAME) - before == set()


def test_a_lab_whose_files_were_deleted_by_hand_leaves_its_snapshot_whole(
    frozen: dict[str, object], before: set[str]
) -> None:
    provision(*RESTORE)
    shutil.rmtree(folder_of(NAME), ignore_errors=True)

    provision(*DOWN)
    left = traces(NAME) - before
    provision(*RESTORE)

    assert left == set()
    assert state(under_test()) == frozen


def plain(finished: Finished) -> str:
    """What a command said, without the line breaks of a narrow terminal."""
    return " ".join(finished.stderr.split())


def test_the_record_of_the_lab_names_the_snapshot_and_the_list_that_it_is_in_use(before: set[str]) -> None:
    provision(*RESTORE)
    in_use = json.loads(provision("lab", "snapshot", "list", "--json").stdout)
    provision(*DOWN)
    free = json.loads(provision("lab", "snapshot", "list", "--json").stdout)

    used, unused = (next(row for row in rows if row["name"] == PROVEN) for rows in (in_use, free))
    assert (used["lab"], used["nodes"], used["subnet"], used["in_use"]) == (NAME, 2, "10.77.212.0/24", True)
    assert (unused["in_use"], unused["bytes"] > 10 << 20) == (False, True)
