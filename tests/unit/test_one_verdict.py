"""The smoke test and `provision doctor -i` judge the same facts alike: one limit a fact, in two packages."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from provision.diagnose.facts import NodeFacts, judge
from runtime.smoke.host import registry
from runtime.smoke.host.registry import Clock, Nodes
from tests.unit.provision.diagnose.test_facts import ADDRESSES, node
from tests.unit.runtime.smoke.host.cluster import healthy

CASES: dict[str, dict[str, Any]] = yaml.safe_load(
    (Path(__file__).parents[1] / "cases" / "one_verdict" / "facts.yml").read_text()
)
MIB = 1 << 20
PLENTY = 10_000


def names_of(says: dict[str, Any]) -> dict[str, str]:
    """Each node's name and the address that it has on te2."""
    own = says.get("own_name", ADDRESSES["te2"])
    return {"te1": says.get("te1", ADDRESSES["te1"]), "te2": own, "te3": ADDRESSES["te3"]}


def surveyed(says: dict[str, Any]) -> Nodes:
    """The facts as the smoke test has them; te2 says them."""
    surveys = {name: replace(healthy(name), addresses_by_name=ADDRESSES) for name in ADDRESSES}
    surveys["te2"] = replace(
        surveys["te2"],
        own_address=names_of(says)["te2"],
        addresses_by_name=names_of(says),
        mtu=says.get("mtu", 1500),
        open_files=says.get("open_files", 1 << 20),
        shared_memory_free=says.get("shm_mib", PLENTY) * MIB,
        free_bytes={"/": says.get("root_mib", PLENTY) * MIB, "/data": says.get("data_mib", PLENTY) * MIB},
    )
    offsets = dict.fromkeys(ADDRESSES, 0.0) | {"te2": says.get("clock_seconds", 0.0)}
    clocks = {name: Clock(offset=offset, error=0.0) for name, offset in offsets.items()}
    return Nodes(ranks=dict.fromkeys(ADDRESSES, (0,)), surveys=surveys, clocks=clocks)


def told(says: dict[str, Any]) -> list[NodeFacts]:
    """The facts as the doctor has them; te2 says them."""
    clock = {"skew_within_seconds": 0.0, "skew_seconds": says.get("clock_seconds", 0.0)}
    te2 = node(
        "te2",
        names=names_of(says),
        mtu=says.get("mtu", 1500),
        open_files=says.get("open_files", 1 << 20),
        free={
            "/": says.get("root_mib", PLENTY) * MIB,
            "/data": says.get("data_mib", PLENTY) * MIB,
            "/dev/shm": says.get("shm_mib", PLENTY) * MIB,
        },
        **clock,
    )
    return [node("te1"), te2, node("te3")]


@pytest.mark.parametrize("name", CASES)
def test_both_speak_against_the_same_node_for_the_same_fact(name: str) -> None:
    case = CASES[name]

    smoke = registry.judge(surveyed(case["says"]))
    doctor = judge(told(case["says"]), unreachable={})

    assert {host for said in smoke for host in said.hosts} | {one.where for one in doctor} <= {"te2"}
    assert sorted({said.check for said in smoke}) == case["smoke"]
    assert sorted({one.row for one in doctor}) == case["doctor"]
    assert bool(smoke) is bool(doctor)
