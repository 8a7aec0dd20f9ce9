"""Errors of the cards themselves: of their memory, and those in the kernel's log."""

from __future__ import annotations

from runtime.smoke.host.gpus import no_gpus, title
from runtime.smoke.host.registry import Findings, HostCheck, Nodes

# Xid errors whose cause is the card, its memory, links or firmware, not a program (NVIDIA, Xid Errors).
_HARDWARE_XIDS = {
    48: "a memory error that was not corrected",
    61: "the card's micro-controller stopped",
    62: "the card's micro-controller halted",
    63: "a row of its memory was remapped",
    64: "a row of its memory could not be remapped",
    74: "an NVLink failed",
    79: "a card has fallen off the bus",
    92: "many memory errors were corrected",
    94: "a memory error that was contained",
    95: "a memory error that was not contained",
    119: "its firmware (GSP) did not answer",
    120: "its firmware (GSP) failed",
    140: "a memory error that was not recovered",
}
_REMAPPING = {"pending": "waits for a reset", "failed": "failed"}
_RESET = "Stop what uses it, then `nvidia-smi --gpu-reset` or reboot; if it comes back, take the node out."


def _judge(nodes: Nodes) -> Findings:
    for host, seen in nodes.gpus.items():
        for card in seen.cards:
            if card.uncorrected:
                found = f"{title(card)} had {card.uncorrected} memory errors that were not corrected"
                yield nodes.finding("gpu errors", host, found, _RESET)
            if card.remapping:
                found = (
                    f"{title(card)}: the remapping of a bad row of its memory {_REMAPPING[card.remapping]}"
                )
                yield nodes.finding("gpu errors", host, found, _RESET)
        for number, count in sorted((seen.xids or {}).items()):
            if number in _HARDWARE_XIDS:
                found = f"the kernel's log has Xid {number} {count} times: {_HARDWARE_XIDS[number]}"
                fix = f"See `dmesg | grep 'Xid.*: {number},'` there. {_RESET}"
                yield nodes.finding("gpu errors", host, found, fix)


def _evidence(nodes: Nodes) -> str:
    unread = [host for host, seen in nodes.gpus.items() if seen.xids is None]
    log = f"the kernel's log may not be read on {', '.join(unread)}" if unread else "no Xid of the hardware"
    return f"no uncorrected memory error; {log}"


CHECK = HostCheck(
    id="host.gpu-errors",
    names=("gpu errors",),
    place=270,
    judge=_judge,
    of=lambda nodes: nodes.cards,
    evidence=_evidence,
    not_applicable=no_gpus,
)
