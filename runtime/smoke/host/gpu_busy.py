"""Cards on which somebody computes already."""

from __future__ import annotations

from runtime.smoke.host.gpus import no_gpus, title
from runtime.smoke.host.registry import Findings, HostCheck, Nodes

_SHOWN = 3


def _judge(nodes: Nodes) -> Findings:
    for host, card in nodes.cards:
        if card.processes:
            found = f"{title(card)} is in use: {', '.join(card.processes[:_SHOWN])}"
            yield nodes.finding("gpu busy", host, found, "End what is left over, or wait for that job.")


CHECK = HostCheck(
    id="host.gpu-busy",
    names=("gpu busy",),
    place=300,
    judge=_judge,
    of=lambda nodes: nodes.cards,
    evidence=lambda _: "no other process",
    not_applicable=no_gpus,
)
