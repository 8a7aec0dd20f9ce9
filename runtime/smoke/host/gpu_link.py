"""Cards that have fewer PCIe lanes than they could."""

from __future__ import annotations

from runtime.smoke.host.gpus import no_gpus, title
from runtime.smoke.host.registry import Findings, HostCheck, Nodes

_FIX = "See `lspci -vv` (LnkSta, downgraded) there; reseat the card or its riser."


def _judge(nodes: Nodes) -> Findings:
    for host, card in nodes.cards:
        if 0 < card.width < card.most_width:
            found = f"{title(card)} has {card.width} PCIe lanes of {card.most_width}"
            yield nodes.finding("gpu link", host, found, _FIX)


CHECK = HostCheck(
    id="host.gpu-link",
    names=("gpu link",),
    place=290,
    judge=_judge,
    of=lambda nodes: nodes.cards,
    evidence=lambda nodes: f"{min(card.width for _, card in nodes.cards)} PCIe lanes at least",
    not_applicable=no_gpus,
)
