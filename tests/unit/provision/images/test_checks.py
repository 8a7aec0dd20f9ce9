"""Each check of a rehearsal, on machines that show what they must and on spoilt ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from provision.images.checks import after_a_reboot, announced, different, disk_cases
from provision.join.protocol import Call
from provision.model import Machine

GIB = 1 << 30
MACHINES = [
    Machine(name=name, address=address, user="root", key_files=(Path("k"),), known_hosts=(Path("h"),))
    for name, address in (("te1", "10.0.0.11"), ("te2", "10.0.0.12"))
]
HOSTS = "127.0.0.1 localhost\n10.0.0.11 te1\n10.0.0.12 te2\n"


def machine(own: str, **changed: Any) -> dict[str, Any]:
    right = {
        "machine-id": f"id of {own}",
        "host keys": [f"ssh-ed25519 {own}"],
        "name": own,
        "hosts": HOSTS,
        "digest": "abc",
        "state": {"data": "mounted /dev/vdb, 5.9 GiB"},
        "fenced": True,
        "mounted": True,
        "written": True,
        "bytes": 6 * GIB,
    }
    return {**right, **changed}


PAIR = [machine("te1"), machine("te2")]


def failed(checks: list[Any]) -> list[str]:
    return [check.name for check in checks if not check.passed]


@pytest.mark.parametrize(
    ("spoilt", "named"),
    [
        ({}, []),
        ({"machine-id": "id of te1"}, ["different machine-id"]),
        ({"machine-id": ""}, ["different machine-id"]),
        ({"host keys": ["ssh-ed25519 te1"]}, ["different host keys"]),
        ({"host keys": ["ssh-ed25519 te1", "ecdsa-sha2-nistp256 own"]}, ["different host keys"]),
        ({"host keys": []}, ["different host keys"]),
    ],
)
def test_machines_that_share_an_identity_are_named(spoilt: dict[str, Any], named: list[str]) -> None:
    assert failed(different([machine("te1"), machine("te2", **spoilt)])) == named


def call(*keys: str) -> Call:
    return Call(nonce="n", image="i", machine="m", address="a", host_keys=keys)


def test_host_keys_must_be_those_that_were_announced() -> None:
    right = {"te1": call("ssh-ed25519 te1"), "te2": call("ssh-ed25519 te2")}

    assert announced(PAIR, right).passed
    assert not announced(PAIR, {**right, "te2": call("ssh-ed25519 other")}).passed
    assert not announced(PAIR, {"te1": right["te1"]}).passed


@pytest.mark.parametrize(
    ("spoilt", "named"),
    [
        ({}, []),
        ({"machine-id": "new"}, ["identity outlives a reboot"]),
        ({"host keys": ["ssh-ed25519 new"]}, ["identity outlives a reboot"]),
        ({"name": "localhost"}, ["name and /etc/hosts"]),
        ({"hosts": "10.0.0.11 te1\n"}, ["name and /etc/hosts"]),
        ({"hosts": "10.0.0.11 te1\n10.0.0.12 te22\n"}, ["name and /etc/hosts"]),
        ({"mounted": False, "bytes": 0}, ["data disk after a reboot"]),
        ({"fenced": False}, ["firewall of jobs"]),
        ({"digest": "abd"}, ["environment digest"]),
        ({"digest": ""}, ["environment digest"]),
    ],
)
def test_what_is_wrong_after_a_reboot_is_named(spoilt: dict[str, Any], named: list[str]) -> None:
    after = [machine("te1"), machine("te2", **spoilt)]

    assert failed(after_a_reboot(MACHINES, PAIR, after, environment="abc")) == named


def test_another_environment_than_the_images_is_named_though_both_machines_agree() -> None:
    assert failed(after_a_reboot(MACHINES, PAIR, PAIR, environment="xyz")) == ["environment digest"]


NOT_MOUNTED = {"mounted": False, "bytes": 0}
BLANK = {"written": False}
NONE = {"state": {"data": "no disk has the label cw-data; restore.yml formats a blank one"}}
TWO = {"state": {"data": "2 disks have the label cw-data (/dev/vdb, /dev/vdc); none is mounted."}}


@pytest.mark.parametrize(
    ("case", "right", "wrong"),
    [
        ("boot without a data disk", {**NOT_MOUNTED, **NONE}, [{}, NOT_MOUNTED, {**NOT_MOUNTED, **TWO}]),
        ("boot with two copies of it", {**NOT_MOUNTED, **TWO}, [{}, TWO, {**NOT_MOUNTED, **NONE}]),
        (
            "boot with a blank disk",
            {**NOT_MOUNTED, **NONE, **BLANK},
            [{}, {**NONE, **BLANK}, {**NOT_MOUNTED, **NONE}],
        ),
        ("boot with a grown disk", {"bytes": 7 * GIB}, [{}, NOT_MOUNTED]),
    ],
)
def test_each_disk_is_dealt_with_as_documented_or_the_check_fails(
    case: str, right: dict[str, Any], wrong: list[dict[str, Any]]
) -> None:
    is_right = {one.name: one.is_right for one in disk_cases(6 * GIB)}[case]

    assert is_right(machine("te2", **right))
    assert not any(is_right(machine("te2", **one)) for one in wrong)
