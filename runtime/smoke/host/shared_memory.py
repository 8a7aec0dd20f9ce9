"""Room for what ranks of one node say to each other."""

from __future__ import annotations

from runtime.smoke.host.registry import Findings, HostCheck, Nodes, size_text

# What containers give where nobody asks for more, and too little for NCCL (NVIDIA's container guide).
_TOO_FEW_BYTES = 64 << 20
_FIX = "See `df -h /dev/shm` and `ls /dev/shm`; a container needs --shm-size or --ipc=host."


def _judge(nodes: Nodes) -> Findings:
    for host, seen in nodes.surveys.items():
        if seen.shared_memory_free <= _TOO_FEW_BYTES:
            free = size_text(seen.shared_memory_free)
            found = f"/dev/shm has {free} free; ranks of one node talk through it"
            yield nodes.finding("shared memory", host, found, _FIX)


def _evidence(nodes: Nodes) -> str:
    return f"{size_text(min(seen.shared_memory_free for seen in nodes.surveys.values()))} free at least"


CHECK = HostCheck(
    id="host.shared-memory", names=("shared memory",), place=200, judge=_judge, evidence=_evidence
)
