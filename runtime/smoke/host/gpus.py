"""Whether each node has a GPU for each of its slots, and all nodes the same ones."""

from __future__ import annotations

from runtime.probes.gpu import Gpu
from runtime.smoke.host.registry import Findings, HostCheck, Nodes


def no_gpus(nodes: Nodes) -> str:
    """Why no check of GPUs has an object, on a cluster of processors."""
    return "" if any(seen.present for seen in nodes.gpus.values()) else "no NVIDIA driver on any node"


def title(card: Gpu) -> str:
    """Where a card is and what it is."""
    return f"GPU {card.bus} ({card.name})"


def models(nodes: Nodes) -> dict[str, str]:
    """The kinds of cards that each node has."""
    return {host: ", ".join(sorted({card.name for card in seen.cards})) for host, seen in nodes.gpus.items()}


def _judge(nodes: Nodes) -> Findings:
    for host, seen in nodes.gpus.items() if not no_gpus(nodes) else ():
        slots = len(nodes.ranks[host])
        if not seen.present:
            fix = "Install the NVIDIA driver there, or exclude it."
            yield nodes.finding("gpu count", host, "it has no nvidia-smi, and other nodes do", fix)
        elif not seen.problem and len(seen.cards) < slots:
            found = f"it has {len(seen.cards)} GPUs for {slots} slots"
            fix = "See `lspci -d 10de:` and `nvidia-smi -L` there, or give it fewer slots in the inventory."
            yield nodes.finding("gpu count", host, found, fix)
    yield from nodes.odd("gpu count", "has", models(nodes), "Train on nodes with equal cards (--exclude).")


CHECK = HostCheck(
    id="host.gpus",
    names=("gpu count",),
    place=250,
    judge=_judge,
    of=lambda nodes: nodes.cards,
    evidence=lambda nodes: f"{len(nodes.cards)} x {nodes.cards[0][1].name}",
    not_applicable=no_gpus,
)
