"""What NCCL talks over, against what the nodes have: sockets beside an active RDMA port are a fault. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from runtime.comm.transport import SOCKETS
from runtime.probes.finding import Finding, of_node
from runtime.probes.host import Survey

_FIX = (
    "See `ulimit -l` (unlimited?), `ls /dev/infiniband` (a container needs it), `echo $NCCL_IB_DISABLE` "
    "(unset?) and NCCL's own reason: NCCL_DEBUG=INFO."
)


def judge_transports(
    chosen: Mapping[str, str], surveys: Mapping[str, Survey], ranks: Mapping[str, tuple[int, ...]]
) -> Iterator[Finding]:
    """What speaks against nodes; `chosen` has the network that NCCL took on each, `ranks` what each holds."""
    for host, name in chosen.items():
        ports = surveys[host].rdma_ports if host in surveys else ()
        if name == SOCKETS and ports:
            found = f"NCCL talks over sockets there, though {', '.join(ports)} is active"
            yield of_node("transport", host, ranks[host], found, _FIX)


def evidence(chosen: Mapping[str, str]) -> dict[str, str]:
    """What the check saw where it found nothing."""
    networks = sorted({name for name in chosen.values() if name})
    return {"collectives.transport": f"NCCL over {', '.join(networks)}"} if networks else {}


def not_applicable(backend: str, nodes: int, chosen: Mapping[str, str]) -> dict[str, str]:
    """Why there is nothing to compare, where there is not."""
    if backend != "nccl":
        reason = f"no GPU: {backend or 'no collectives'}"
    elif nodes == 1:
        reason = "one node"
    elif not any(chosen.values()):
        reason = "NCCL's log does not say what it uses"
    else:
        return {}
    return {"collectives.transport": reason}
