"""Four healthy nodes for tests, and what a test changes of that."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from runtime.probes.gpu import Gpus
from runtime.probes.host import Survey
from runtime.smoke.host.registry import Nodes

NAMES = {"te1": "10.0.0.1", "te2": "10.0.0.2", "te3": "10.0.0.3", "te4": "10.0.0.4"}


def healthy(host: str) -> Survey:
    return Survey(
        hostname=host,
        own_address=NAMES[host],
        addresses_by_name=NAMES,
        interface="eth0",
        job_interface="eth0",
        job_address=f"{NAMES[host]}/24",
        mtu=1500,
        speed_bits=0,
        rdma=False,
        rdma_ports=(),
        open_files=1 << 20,
        locked_bytes=8 << 20,
        shared_memory_free=1 << 30,
        free_bytes={"/": 10 << 30, "/data": 10 << 30},
        free_files={"/": 10**6},
        kernel="6.1.0-42-amd64",
        processors=8,
        memory_bytes=64 << 30,
        environment="d" * 64,
        cuda="13.0.96",
        nccl="2.28.9",
        gpus=Gpus(present=False, problem="", driver="", cards=(), xids=None),
    )


def cluster(**changes: Any) -> dict[str, Survey]:
    """Four healthy nodes, the third changed."""
    surveys = {host: healthy(host) for host in NAMES}
    return surveys | {"te3": replace(surveys["te3"], **changes)}


def nodes(surveys: dict[str, Survey] | None = None, **measured: Any) -> Nodes:
    """The healthy ones, or these; the first holds rank 0, and so on."""
    return Nodes(
        ranks={host: (rank,) for rank, host in enumerate(NAMES)}, surveys=surveys or cluster(), **measured
    )
