"""What speaks against a node's GPUs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from runtime.probes.gpu import Gpus, parse
from runtime.smoke.host.registry import Nodes, evidence, judge, not_applicable
from tests.unit.runtime.launch.smi import card, smi
from tests.unit.runtime.smoke.host.cluster import healthy

NONE = Gpus(present=False, problem="", driver="", cards=(), xids=None)


def gpus(*cards: str, driver: str = "580.95.05", **changes: Any) -> Gpus:
    version, found = parse(smi(*(cards or (card(), card())), driver=driver))
    return Gpus(**{"present": True, "problem": "", "driver": version, "cards": found, "xids": {}, **changes})


def cluster(slots: int = 2, **cards: Gpus) -> Nodes:
    surveys = {host: replace(healthy(host), gpus=seen) for host, seen in cards.items()}
    return Nodes(ranks=dict.fromkeys(cards, tuple(range(slots))), surveys=surveys)


def said(te2: Gpus) -> list[tuple[str, tuple[str, ...], str]]:
    """Three nodes, the second as given."""
    found = judge(cluster(te1=gpus(), te2=te2, te3=gpus()))
    return [(one.check, one.hosts, one.found) for one in found]


def test_healthy_nodes_have_nothing_said_against_them() -> None:
    assert said(gpus()) == []
    seen = evidence(cluster(te1=gpus(), te2=gpus(xids=None)))
    assert seen["host.gpus"] == "4 x NVIDIA H100 80GB HBM3"
    assert seen["host.gpu-errors"].endswith("the kernel's log may not be read on te2")


def test_a_cluster_of_processors_is_not_asked_for_gpus() -> None:
    nodes = cluster(te1=NONE, te2=NONE)

    assert judge(nodes) == ()
    assert not any("gpu" in name for name in evidence(nodes))
    reasons = {name: reason for name, reason in not_applicable(nodes).items() if "gpu" in name}
    assert set(reasons.values()) == {"no NVIDIA driver on any node"}
    assert len(reasons) == 6


@pytest.mark.parametrize(
    ("te2", "check", "words"),
    [
        (NONE, "gpu count", "no nvidia-smi, and other nodes do"),
        (gpus(card()), "gpu count", "1 GPUs for 2 slots"),
        (
            gpus(cards=(), driver="", problem="Driver/library version mismatch"),
            "gpu driver",
            "version mismatch",
        ),
        (gpus(driver="570.86.15"), "gpu driver", "driver 570.86.15, against 580.95.05 on te1, te3"),
        (gpus(card(), card(dram_uncorrectable="3")), "gpu errors", "had 3 memory errors"),
        (gpus(card(), card(remapped_row_pending="Yes")), "gpu errors", "waits for a reset"),
        (gpus(xids={79: 1, 31: 4}), "gpu errors", "Xid 79 1 times: a card has fallen off the bus"),
        (gpus(card(), card(hw_slowdown="Active")), "gpu clocks", "slowed down: hw_slowdown"),
        (gpus(card(), card(gpu_temp="93 C")), "gpu clocks", "at 93 degrees"),
        (
            gpus(card(), card(applications="1200 MHz")),
            "gpu clocks",
            "set to 1200 MHz, the others to 1980 MHz",
        ),
        (gpus(card(), card(current_link_width="8x")), "gpu link", "8 PCIe lanes of 16"),
        (gpus(card(), card(process="C")), "gpu busy", "in use: 4711 /env/bin/python"),
        (
            gpus(card(product_name="NVIDIA A100-SXM4-80GB"), card(product_name="NVIDIA A100-SXM4-80GB")),
            "gpu count",
            "has NVIDIA A100-SXM4-80GB, against NVIDIA H100 80GB HBM3 on te1, te3",
        ),
    ],
)
def test_each_fault_is_said_once_against_its_node(te2: Gpus, check: str, words: str) -> None:
    ((name, hosts, found),) = said(te2)

    assert (name, hosts) == (check, ("te2",))
    assert words in found


def test_an_xid_that_a_program_causes_accuses_no_card() -> None:
    assert said(gpus(xids={13: 2, 31: 4, 43: 1})) == []
