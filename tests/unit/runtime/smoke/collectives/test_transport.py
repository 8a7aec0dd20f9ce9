"""NCCL's word for its network, and what speaks against it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from runtime.probes.host import rdma_ports
from runtime.smoke.collectives.transport import chosen, evidence, judge_transports, not_applicable
from tests.unit.runtime.smoke.host.cluster import healthy

# From NVIDIA/nccl issues 226 and 1357, with the host names cut; the last form is that of NCCL 2.27 and later.
LOGS = {
    "gpu19:49355:49414 [1] NCCL INFO Using network IBext\n": "IBext",
    "node:1:2 [0] NCCL INFO NET/IB : No device found.\nnode:1:2 [0] NCCL INFO Using network Socket": "Socket",
    "node:1:2 [0] NCCL INFO Using network AWS Libfabric\n": "AWS Libfabric",
    "node:1:2 [0] NCCL INFO Assigned NET plugin IB to comm\n": "IB",
    "node:1:2 [0] NCCL INFO Bootstrap : Using eth0:10.0.0.1<0>\n": "",
    "": "",
}


RANKS = {"te1": (0,), "te2": (1,), "te3": (2,), "te4": (3,)}


@pytest.mark.parametrize(("log", "name"), LOGS.items())
def test_the_network_is_read_from_the_log(log: str, name: str) -> None:
    assert chosen(log) == name


def test_sockets_beside_an_active_port_are_named() -> None:
    ports = ("mlx5_0 port 1 (InfiniBand)",)
    surveys = {host: replace(healthy(host), rdma_ports=ports) for host in ("te2", "te3")}
    surveys["te1"] = healthy("te1")

    (said,) = judge_transports(
        {"te1": "Socket", "te2": "Socket", "te3": "IB", "te4": "Socket"}, surveys, RANKS
    )

    assert (said.check, said.hosts, said.ranks) == ("transport", ("te2",), (1,))
    assert said.found == (
        "te2 (rank 1): NCCL talks over sockets there, though mlx5_0 port 1 (InfiniBand) is active"
    )


def test_only_active_ports_count(tmp_path: Path) -> None:
    for device, state in (("mlx5_0", "4: ACTIVE"), ("mlx5_1", "1: DOWN")):
        port = tmp_path / device / "ports" / "1"
        port.mkdir(parents=True)
        (port / "state").write_text(f"{state}\n")
        (port / "link_layer").write_text("InfiniBand\n")
    (tmp_path / "broken" / "ports" / "1").mkdir(parents=True)

    assert rdma_ports(tmp_path) == ["mlx5_0 port 1 (InfiniBand)"]


def test_what_cannot_be_compared_says_why() -> None:
    assert not_applicable("gloo", 4, {}) == {"collectives.transport": "no GPU: gloo"}
    assert not_applicable("nccl", 1, {"te1": "Socket"}) == {"collectives.transport": "one node"}
    assert not_applicable("nccl", 2, {"te1": ""}) == {
        "collectives.transport": "NCCL's log does not say what it uses"
    }
    assert not_applicable("nccl", 2, {"te1": "IB"}) == {}
    assert evidence({"te1": "IB", "te2": "IB"}) == {"collectives.transport": "NCCL over IB"}
