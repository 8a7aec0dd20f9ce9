"""The smoke test and `provision doctor -i` judge the same facts alike: one limit a fact, in two packages."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from provision.core.diagnose_facts import NodeFacts, judge
from runtime.probes.gpu import Gpus
from runtime.probes.host import Survey
from runtime.smoke.host.host_checks import Clock, judge_hosts

CASES: dict[str, dict[str, Any]] = yaml.safe_load(
    (Path(__file__).parents[1] / "cases" / "one_verdict" / "facts.yml").read_text()
)
ADDRESSES = {"te1": "10.0.0.1", "te2": "10.0.0.2", "te3": "10.0.0.3"}
MIB = 1 << 20
PLENTY = 10_000


def names_of(says: dict[str, Any]) -> dict[str, str]:
    """Each node's name and the address that it has on te2."""
    own = says.get("own_name", ADDRESSES["te2"])
    return {"te1": says.get("te1", ADDRESSES["te1"]), "te2": own, "te3": ADDRESSES["te3"]}


def surveyed(says: dict[str, Any]) -> tuple[dict[str, Survey], dict[str, Clock]]:
    """The facts as the smoke test has them; te2 says them."""
    healthy = Survey(
        hostname="",
        own_address="",
        addresses_by_name=ADDRESSES,
        interface="eth0",
        job_interface="eth0",
        job_address="",
        mtu=1500,
        speed_bits=0,
        rdma=False,
        rdma_ports=(),
        open_files=1 << 20,
        locked_bytes=-1,
        shared_memory_free=PLENTY * MIB,
        free_bytes={"/": PLENTY * MIB, "/data": PLENTY * MIB},
        free_files={"/": 10**6},
        kernel="6.1.0",
        processors=8,
        memory_bytes=64 << 30,
        environment="d" * 64,
        cuda="",
        nccl="",
        gpus=Gpus(present=False, problem="", driver="", cards=(), xids=None),
    )
    surveys = {
        name: replace(healthy, hostname=name, own_address=address, job_address=f"{address}/24")
        for name, address in ADDRESSES.items()
    }
    surveys["te2"] = replace(
        surveys["te2"],
        own_address=names_of(says)["te2"],
        addresses_by_name=names_of(says),
        mtu=says.get("mtu", 1500),
        open_files=says.get("open_files", 1 << 20),
        shared_memory_free=says.get("shm_mib", PLENTY) * MIB,
        free_bytes={
            name: says.get(key, PLENTY) * MIB for name, key in (("/", "root_mib"), ("/data", "data_mib"))
        },
    )
    offsets = dict.fromkeys(ADDRESSES, 0.0) | {"te2": says.get("clock_seconds", 0.0)}
    return surveys, {name: Clock(offset=offset, error=0.0) for name, offset in offsets.items()}


def told(says: dict[str, Any]) -> list[NodeFacts]:
    """The facts as the doctor has them; te2 says them."""
    well = NodeFacts(
        name="",
        address="",
        names=ADDRESSES,
        own=(),
        mtu=1500,
        open_files=1 << 20,
        free={"/": PLENTY * MIB, "/data": PLENTY * MIB, "/dev/shm": PLENTY * MIB},
        skew_seconds=0.0,
        skew_within_seconds=0.0,
        versions={"environment digest": "d" * 64},
        job_interface="eth0",
        interface="eth0",
    )
    facts = {name: replace(well, name=name, address=own, own=[own]) for name, own in ADDRESSES.items()}
    facts["te2"] = replace(
        facts["te2"],
        names=names_of(says),
        mtu=says.get("mtu", 1500),
        open_files=says.get("open_files", 1 << 20),
        free={
            "/": says.get("root_mib", PLENTY) * MIB,
            "/data": says.get("data_mib", PLENTY) * MIB,
            "/dev/shm": says.get("shm_mib", PLENTY) * MIB,
        },
        skew_seconds=says.get("clock_seconds", 0.0),
    )
    return list(facts.values())


@pytest.mark.parametrize("name", CASES)
def test_both_speak_against_the_same_node_for_the_same_fact(name: str) -> None:
    case = CASES[name]

    smoke = judge_hosts(*surveyed(case["says"]))
    doctor = judge(told(case["says"]), unreachable={})

    assert {said.host for said in smoke} | {one.where for one in doctor} <= {"te2"}
    assert sorted({said.check for said in smoke}) == case["smoke"]
    assert sorted({one.row for one in doctor}) == case["doctor"]
    assert bool(smoke) is bool(doctor)
