"""What NCCL talks over, by its own log, and what speaks against nodes: sockets beside an active RDMA port."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.probes.finding import Finding, of_node

if TYPE_CHECKING:
    from runtime.probes.host import Survey  # a rank needs none of it
_FIX = (
    "See `ulimit -l` (unlimited?), `ls /dev/infiniband` (a container needs it), `echo $NCCL_IB_DISABLE` "
    "(unset?) and NCCL's own reason: NCCL_DEBUG=INFO."
)
SOCKETS = "Socket"
# "Using network IB" until NCCL 2.26, "Assigned NET plugin IB to comm" since (src/plugin/net.cc).
_CHOSEN = re.compile(r"NCCL INFO (?:Using network|Assigned NET plugin) (.+?)(?: to comm.*)?$", re.MULTILINE)


def keep_log(environ: MutableMapping[str, str]) -> Path:
    """Has NCCL log its initialisation to a file of this process; to be called before the group is formed."""
    descriptor, name = tempfile.mkstemp(prefix="clusterwright-nccl-")
    os.close(descriptor)
    environ.update(NCCL_DEBUG="INFO", NCCL_DEBUG_SUBSYS="INIT,NET", NCCL_DEBUG_FILE=name)
    return Path(name)


def chosen(log: str) -> str:
    """`IB`, `Socket` or a plugin's name, from the text of NCCL's log; empty where it does not say."""
    found = _CHOSEN.findall(log)
    return found[-1].strip() if found else ""


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
