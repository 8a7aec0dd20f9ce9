"""Whether the NVIDIA drivers answer, and are one version on all nodes."""

from __future__ import annotations

from runtime.smoke.host.gpus import no_gpus
from runtime.smoke.host.registry import Findings, HostCheck, Nodes

_FIX = "See `dmesg | grep -i nvrm` and `nvidia-smi` there; reboot after an update of kernel or driver."


def _judge(nodes: Nodes) -> Findings:
    for host, seen in nodes.gpus.items():
        if seen.problem:
            yield nodes.finding("gpu driver", host, f"nvidia-smi fails: {seen.problem}", _FIX)
    versions = {host: seen.driver for host, seen in nodes.gpus.items()}
    yield from nodes.odd("gpu driver", "has the NVIDIA driver", versions)


CHECK = HostCheck(
    id="host.gpu-driver",
    names=("gpu driver",),
    place=260,
    judge=_judge,
    of=lambda nodes: nodes.cards,
    evidence=lambda nodes: f"driver {next(seen.driver for seen in nodes.gpus.values() if seen.cards)}",
    not_applicable=no_gpus,
)
