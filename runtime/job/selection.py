"""Which nodes and slots of the hostfile a job takes: --include, --exclude, --nnodes, --nproc-per-node.

A filter reads `NODE[:SLOT[,SLOT]...][@NODE...]`; a node without slots means all of its slots. The order of
ranks is the hostfile's, whatever the order in the filter.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from runtime.errors import BadInput
from runtime.job.hostfile import Host

_FORM = "A filter reads NODE[:SLOT[,SLOT]...][@NODE...], for example te1:0,1@te2."


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """A node that takes part, with its slots; `picked` says that a filter chose among them."""

    host: Host
    slots: tuple[int, ...]
    picked: bool


def parse_filter(text: str, *, option: str) -> dict[str, tuple[int, ...] | None]:
    """Slots by node; None stands for all slots of the node.

    Raises:
        BadInput: with the column of the first thing that is not of the form.
    """
    filtered: dict[str, tuple[int, ...] | None] = {}
    column = 1
    for part in text.split("@"):
        name, colon, numbers = part.partition(":")
        where = f"read {option} {text!r}, column {column}"
        if not name or name.strip() != name:
            raise BadInput(where, found=f"{part!r} names no node", fix=_FORM)
        if name in filtered:
            raise BadInput(where, found=f"{name} is named twice", fix="Name each node once.")
        slots_column = column + len(name) + 1
        filtered[name] = _slots(numbers, f"read {option} {text!r}", slots_column) if colon else None
        column += len(part) + 1
    return filtered


def _slots(numbers: str, asked: str, column: int) -> tuple[int, ...]:
    found: list[int] = []
    for number in numbers.split(","):
        where = f"{asked}, column {column}"
        if not re.fullmatch(r"[0-9]{1,4}", number):
            raise BadInput(where, found=f"{number!r} where the number of a slot is wanted", fix=_FORM)
        if int(number) in found:
            raise BadInput(where, found=f"slot {int(number)} is named twice", fix="Name each slot once.")
        found.append(int(number))
        column += len(number) + 1
    return tuple(sorted(found))


def choose(
    hosts: Sequence[Host],
    *,
    include: str = "",
    exclude: str = "",
    nnodes: int | None = None,
    nproc_per_node: int | None = None,
) -> tuple[Chosen, ...]:
    """The nodes and slots that take part, in the hostfile's order.

    Raises:
        BadInput: a filter names what the hostfile does not, nothing is left, or more is asked than there is.
    """
    if include and exclude:
        raise BadInput(
            "choose nodes with --include and --exclude at once",
            found="both are given",
            fix="Give one of them; each says all that the other can.",
        )
    chosen = tuple(Chosen(host=host, slots=tuple(range(host.slots)), picked=False) for host in hosts)
    if include:
        chosen = _include(chosen, _known(parse_filter(include, option="--include"), chosen, "--include"))
    if exclude:
        chosen = _exclude(chosen, _known(parse_filter(exclude, option="--exclude"), chosen, "--exclude"))
    if not chosen:
        raise BadInput(f"leave out {exclude!r}", found="no node is left", fix="Exclude fewer nodes.")
    return _limit_slots(_limit_nodes(chosen, nnodes), nproc_per_node)


def _known(
    filtered: Mapping[str, tuple[int, ...] | None], chosen: Sequence[Chosen], option: str
) -> Mapping[str, tuple[int, ...] | None]:
    slots_of = {node.host.name: node.host.slots for node in chosen}
    for name, slots in filtered.items():
        if name not in slots_of:
            raise BadInput(
                f"find {name} of {option} in the hostfile",
                found=f"it has {', '.join(slots_of)}",
                fix="Use the names as the hostfile writes them.",
            )
        missing = [slot for slot in slots or () if slot >= slots_of[name]]
        if missing:
            raise BadInput(
                f"find slot {missing[0]} of {name} ({option})",
                found=f"the hostfile gives {name} slots={slots_of[name]}, numbered from 0",
                fix="Ask for fewer slots or raise the node's slots in the hostfile.",
            )
    return filtered


def _include(chosen: Sequence[Chosen], filtered: Mapping[str, tuple[int, ...] | None]) -> tuple[Chosen, ...]:
    return tuple(_with_slots(node, filtered[node.host.name]) for node in chosen if node.host.name in filtered)


def _exclude(chosen: Sequence[Chosen], filtered: Mapping[str, tuple[int, ...] | None]) -> tuple[Chosen, ...]:
    left = []
    for node in chosen:
        gone = filtered.get(node.host.name, ())
        kept = () if gone is None else tuple(slot for slot in node.slots if slot not in gone)
        if kept:
            left.append(_with_slots(node, kept if gone else None))
    return tuple(left)


def _with_slots(node: Chosen, slots: tuple[int, ...] | None) -> Chosen:
    return node if slots is None else Chosen(host=node.host, slots=slots, picked=True)


def _limit_nodes(chosen: tuple[Chosen, ...], nnodes: int | None) -> tuple[Chosen, ...]:
    if nnodes is None:
        return chosen
    if not 1 <= nnodes <= len(chosen):
        raise BadInput(
            f"take {nnodes} nodes (--nnodes)",
            found=f"{len(chosen)} to choose from: {', '.join(node.host.name for node in chosen)}",
            fix="Ask for a number from 1 to that.",
        )
    return chosen[:nnodes]


def _limit_slots(chosen: tuple[Chosen, ...], nproc_per_node: int | None) -> tuple[Chosen, ...]:
    if nproc_per_node is None:
        return chosen
    short = [node for node in chosen if not 1 <= nproc_per_node <= len(node.slots)]
    if short:
        raise BadInput(
            f"start {nproc_per_node} processes on each node (--nproc-per-node)",
            found="; ".join(f"{node.host.name} has {len(node.slots)} slots" for node in short),
            fix="Ask for fewer or raise slots in the hostfile.",
        )
    return tuple(
        Chosen(host=node.host, slots=node.slots[:nproc_per_node], picked=node.picked) for node in chosen
    )
