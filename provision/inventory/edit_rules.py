"""What holds for an edit of a node's line in a file of any format: when it is refused, and how. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from provision.errors import BadInput

DRAINED = "cluster_drained"
ADDRESSES = ("ansible_host", "cluster_address")

_Place = TypeVar("_Place")
_RANGE = re.compile(r"\[[^\]]*:[^\]]*\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeLine(Generic[_Place]):
    """A node in one group's list: its variables there, the number of its line, and where that stands."""

    group: str
    name: str
    values: Mapping[str, Any]
    number: int
    place: _Place


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeLines(Generic[_Place]):
    """All nodes of a file, of whichever group, and which groups are `cluster` and those below it."""

    lines: Sequence[NodeLine[_Place]]
    groups: Collection[str]

    def of_cluster(self) -> list[NodeLine[_Place]]:
        """Those in the cluster's groups.

        Raises:
            BadInput: there are none, or one stands for several nodes.
        """
        found = [line for line in self.lines if line.group in self.groups]
        if not found:
            raise BadInput(
                "find the nodes of the cluster",
                found="no list of nodes in the group `cluster` or one below it",
                fix="Write the nodes as inventory/example/hosts.yml does.",
            )
        if ranges := [line for line in found if _RANGE.search(line.name)]:
            raise BadInput(
                "find the nodes of the cluster",
                found=f"line {ranges[0].number} is a range of them, {ranges[0].name}",
                fix="Write each of its nodes on a line of its own, then give the same command again.",
            )
        return found

    def one(self, name: str) -> NodeLine[_Place]:
        """The line of a node that is edited: the only one with variables, or the only one there is.

        Raises:
            BadInput: there is no such node, or it cannot be told which line means it.
        """
        inside = self.of_cluster()
        if name not in {line.name for line in inside}:
            raise BadInput(
                f"find node {name} in the inventory",
                found=f"its nodes are {', '.join(dict.fromkeys(line.name for line in inside))}",
                fix="Name one of them, or add it: provision node add.",
            )
        every = [line for line in self.lines if covers(line.name, name)]
        told = [line for line in every if line.values]
        chosen = told or [line for line in inside if line.name == name]
        if len(chosen) != 1 or chosen[0].name != name:
            raise BadInput(
                f"edit the line of {name}",
                found=f"it is on the lines {_numbers(line.number for line in chosen or every)}, "
                "and each may hold what is to be changed",
                fix="Write its variables on one line by hand; the others are its name alone.",
            )
        return chosen[0]

    def group_for(self, name: str, group: str | None, filled: Collection[str]) -> str:
        """The group that takes a new node: the one asked for, or the only one there is.

        Args:
            filled: the cluster's groups to which a line can be added.

        Raises:
            BadInput: there is no such group, it takes no line, or there are several.
        """
        if every := [line for line in self.lines if line.values and covers(line.name, name)]:
            raise BadInput(
                f"add node {name}",
                found=f"line {every[0].number} has variables of it, outside of the cluster",
                fix="Take that line away, or add the node to a group of the cluster by hand.",
            )
        shown = ", ".join(sorted(filled))
        if group is not None and group not in filled:
            raise BadInput(
                f"add node {name} to the group {group}",
                found=f"the groups of the cluster that list nodes are {shown}",
                fix="Name one of them, or write the group's first node by hand.",
            )
        if group is None and len(filled) != 1:
            raise BadInput(
                f"add node {name}",
                found=f"the cluster has several groups that list nodes: {shown}",
                fix=f"Say which one takes it, for example --group {min(filled)}",
            )
        return group or next(iter(filled))


def covers(written: str, name: str) -> bool:
    """Whether a name, or a range such as te[1:4], may mean the node. A range is not counted through."""
    if written == name or not _RANGE.search(written):
        return written == name
    parts = (re.escape(part) for part in _RANGE.split(written))
    return re.fullmatch("[A-Za-z0-9]+".join(parts), name) is not None


def mentions(text: str, name: str) -> list[int]:
    """The lines, comments apart, that hold the name as a word."""
    word = re.compile(rf"(?<![\w.-]){re.escape(name)}(?![\w.-])")
    lines = enumerate(text.splitlines(), start=1)
    return [number for number, line in lines if word.search(line.partition("#")[0])]


def groups_below(children: Mapping[str, Collection[str]]) -> set[str]:
    """The group `cluster` and all below it."""
    found: set[str] = set()
    waiting = ["cluster"]
    while waiting:
        if (group := waiting.pop()) not in found:
            found.add(group)
            waiting.extend(children.get(group, ()))
    return found


def address_of(values: Mapping[str, Any], name: str) -> str:
    return str(next((values[variable] for variable in ADDRESSES if variable in values), name))


def _refuse_other_address(values: Mapping[str, Any], name: str, address: str) -> None:
    if (has := address_of(values, name)) != address:
        raise BadInput(
            f"add node {name} at {address}",
            found=f"it is in the inventory already, at {has}",
            fix=f"provision node replace {name} --address {address}",
        )


def new_values(address: str, slots: int | None, cluster_address: str | None) -> dict[str, Any]:
    """The variables of a node that is added."""
    values: dict[str, Any] = {"ansible_host": address}
    if cluster_address is not None:
        values["cluster_address"] = cluster_address
    if slots is not None:
        values["cluster_slots"] = slots
    return values


def replaced_variable(
    values: Mapping[str, Any], name: str, address: str, keeps_cluster_address: bool
) -> str | None:
    """The variable that gets the new address; none where it has it.

    Raises:
        BadInput: the node's line has two addresses, or none.
    """
    wanted = ADDRESSES[:1] if keeps_cluster_address else ADDRESSES
    found = [variable for variable in values if variable in wanted]
    if found and all(values[variable] == address for variable in found):
        return None
    if len(found) != 1:
        raise BadInput(
            f"give node {name} the address {address}",
            found="it has ansible_host and cluster_address" if found else "its line has no address",
            fix="Where only its ansible_host is another one, as with a mesh: --keep-cluster-address; "
            "else write its line by hand, then run this command again with its ansible_host.",
        )
    return found[0]


def removable(text: str, listed: NodeLines[_Place], name: str) -> NodeLine[_Place] | None:
    """The line of a node that goes; none where there is no such node.

    Raises:
        BadInput: it is the last one, or another line means it as well.
    """
    inside = listed.of_cluster()
    known = next((line for line in inside if line.name == name), None)
    if known is not None:
        _refuse_last(inside, name)
        _refuse_other_mention(text, listed.lines, name, known.number)
    return known


def takes_jobs(listed: NodeLines[_Place], name: str) -> bool:
    """Whether the node, which is to be drained, takes jobs.

    Raises:
        BadInput: there is no such node, or no other takes any.
    """
    if listed.one(name).values.get(DRAINED) is True:
        return False
    _refuse_last_working(listed.of_cluster(), name)
    return True


def is_listed(listed: NodeLines[_Place], name: str, address: str) -> bool:
    """Whether the node, which is to be added, is there already.

    Raises:
        BadInput: with another address.
    """
    if name not in {line.name for line in listed.of_cluster()}:
        return False
    _refuse_other_address(listed.one(name).values, name, address)
    return True


def _refuse_last(lines: Iterable[NodeLine[_Place]], name: str) -> None:
    if all(line.name == name for line in lines):
        raise BadInput(
            f"remove node {name}",
            found="it is the only one of the cluster",
            fix="ansible-playbook playbooks/teardown.yml takes everything off it.",
        )


def _refuse_other_mention(text: str, lines: Iterable[NodeLine[_Place]], name: str, number: int) -> None:
    found = {*mentions(text, name), *(line.number for line in lines if covers(line.name, name))}
    if others := found - {number}:
        raise BadInput(
            f"remove node {name}",
            found=f"line {_numbers(others)} of the inventory names it as well",
            fix="Take it out there first.",
        )


def _refuse_last_working(lines: Iterable[NodeLine[_Place]], name: str) -> None:
    lines = list(lines)
    drained = {line.name for line in lines if line.values.get(DRAINED) is True}
    if not {line.name for line in lines} - drained - {name}:
        raise BadInput(
            f"drain node {name}",
            found="no other node would take jobs",
            fix="Take one back first: provision node undrain NODE",
        )


def not_safe(name: str) -> BadInput:
    return BadInput(
        f"edit the line of {name}",
        found="the file is written in a way that cannot be edited safely; nothing was changed",
        fix="Edit it by hand, then run ansible-playbook playbooks/site.yml.",
    )


def unreadable(found: object) -> BadInput:
    return BadInput("read the inventory", found=str(found), fix="Correct it, then run the command again.")


def _numbers(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(numbers)))
