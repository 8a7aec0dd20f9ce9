"""Cards that are slowed down, hot before any work, or set to a lower clock than the others of their model."""

from __future__ import annotations

from statistics import median

from runtime.smoke.host.gpus import models, no_gpus, title
from runtime.smoke.host.registry import Findings, HostCheck, Nodes

_HOT_CELSIUS = 90
_LEAST_SHARE = 0.9
_SLOWED_FIX = "See `nvidia-smi -q -d PERFORMANCE,TEMPERATURE,POWER` there: cooling, power cable, power brake."
_CLOCK_FIX = "See `nvidia-smi -q -d CLOCK` there; `nvidia-smi --reset-applications-clocks` undoes it."


def _judge(nodes: Nodes) -> Findings:
    for host, card in nodes.cards:
        if card.slowed_by:
            found = f"{title(card)} is slowed down: {', '.join(card.slowed_by)}"
            yield nodes.finding("gpu clocks", host, found, _SLOWED_FIX)
        elif card.temperature is not None and card.temperature >= _HOT_CELSIUS:
            found = f"{title(card)} is at {card.temperature} degrees Celsius before any work"
            yield nodes.finding("gpu clocks", host, found, "See its fans and the room's cooling.")
    clocks = [card.wanted_mhz for _, card in nodes.cards if card.wanted_mhz]
    alike = len({model for model in models(nodes).values() if model}) == 1
    usual = median(clocks) if clocks and alike else 0
    for host, card in nodes.cards:
        if 0 < card.wanted_mhz < _LEAST_SHARE * usual:
            found = f"GPU {card.bus} is set to {card.wanted_mhz} MHz, the others to {usual:.0f} MHz"
            yield nodes.finding("gpu clocks", host, found, _CLOCK_FIX)


def _evidence(nodes: Nodes) -> str:
    return f"not slowed down; {max(card.temperature or 0 for _, card in nodes.cards)} degrees Celsius at most"


CHECK = HostCheck(
    id="host.gpu-clocks",
    names=("gpu clocks",),
    place=280,
    judge=_judge,
    of=lambda nodes: nodes.cards,
    evidence=_evidence,
    not_applicable=no_gpus,
)
