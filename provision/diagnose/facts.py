"""What is wrong with nodes, from what each tells about itself: bad alone, or the odd one by majority."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from provision.diagnose.causes import Diagnosis
from provision.printable import one_line

# Those of the smoke test (runtime/smoke/host): tests/unit/test_one_verdict.py holds both to the same verdict.
_ENOUGH_FILES = 1024
_ENOUGH_DISK_BYTES = 256 << 20
_ENOUGH_SHM_BYTES = (64 << 20) + 1
_SKEW_SECONDS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """One node about itself.

    names: each node's name -> the address that it has here. own: its addresses, loopback apart.
    free: folder -> free bytes. skew_seconds: its clock against the controller's; skew_within_seconds: half
    the time that the question took, by which it may be wrong. versions: what must be equal on all nodes.
    job_interface: of its job.env. interface: the one that carries its address in the cluster.
    certificate: of the last smoke test that it passed, unverified. clusterwright: the version that jobs use.
    """

    name: str
    address: str
    names: Mapping[str, str]
    own: Sequence[str]
    mtu: int
    open_files: int
    free: Mapping[str, int]
    skew_seconds: float
    skew_within_seconds: float
    versions: Mapping[str, str]
    job_interface: str
    interface: str
    certificate: Mapping[str, Any] | None = None
    clusterwright: str = ""


def facts_in(said: str) -> tuple[float, dict[str, Any]]:
    """A node's clock, and what it says of itself: the words of NodeFacts, each of its type.

    Raises:
        ValueError: it is anything else, which one node's answer may be.
    """
    clock, _, text = said.partition("\n")
    try:
        facts = json.loads(text)
    except (RecursionError, MemoryError) as e:
        raise ValueError("it is nested too deeply") from e
    if not isfinite(float(clock)) or not isinstance(facts, dict) or facts.keys() != _KINDS.keys():
        raise ValueError("it lacks something, or says something else")
    if odd := [name for name, is_kind in _KINDS.items() if not is_kind(facts[name])]:
        raise ValueError(f"{odd[0]} is of another type")
    return float(clock), facts


def _is_text(value: Any) -> bool:
    """One printable line: a node speaks for itself alone."""
    return isinstance(value, str) and value.isprintable()


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < _LARGEST


def _each(is_kind: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """A mapping of names to values of a kind."""
    return lambda value: (
        isinstance(value, dict) and all(map(_is_text, value)) and all(map(is_kind, value.values()))
    )


_LARGEST = 1 << 63
_KINDS: Mapping[str, Callable[[Any], bool]] = {
    "names": _each(_is_text),
    "own": lambda value: isinstance(value, list) and all(map(_is_text, value)),
    "mtu": _is_whole,
    "open_files": _is_whole,
    "free": _each(_is_whole),
    "versions": _each(_is_text),
    "job_interface": _is_text,
    "interface": _is_text,
    "certificate": lambda value: value is None or isinstance(value, dict),
    "clusterwright": _is_text,
}


def judge(nodes: Sequence[NodeFacts], *, unreachable: Mapping[str, str]) -> list[Diagnosis]:
    """Everything that speaks against the nodes.

    Args:
        unreachable: the nodes that did not answer, and why.
    """
    found = [_silent(name, why) for name, why in unreachable.items()]
    for node in nodes:
        found += [*_names(node, nodes), *_limits(node), *_clock(node), *_interface(node)]
    return [*found, *_odd(nodes)]


def _silent(name: str, why: str) -> Diagnosis:
    return Diagnosis(
        row="unreachable",
        where=name,
        evidence=one_line(why),
        cause="the node is off, its network is down, or it does not take this controller's key",
        check=f"ssh {name} true",
        fix="Start the node, or see the line of docs/runbook.md for what ssh says.",
    )


def _names(node: NodeFacts, nodes: Sequence[NodeFacts]) -> Iterable[Diagnosis]:
    for other in nodes:
        address = node.names.get(other.name, "")
        if other.name == node.name and address.startswith("127."):
            yield Diagnosis(
                row="loopback-name",
                where=node.name,
                evidence=f"{node.name} is {address} there",
                cause="the node's own name is a loopback address, and Gloo tells the others to come there",
                check=f"getent ahostsv4 {node.name}",
                fix="Remove that line of /etc/hosts (role host_names).",
            )
        elif address not in other.own:
            yield Diagnosis(
                row="wrong-name",
                where=node.name,
                evidence=f"{other.name} is {address or 'unknown'} there, and {', '.join(other.own)} itself",
                cause="/etc/hosts of the node has a wrong entry",
                check=f"getent ahostsv4 {other.name}",
                fix="Remove that line of /etc/hosts, then run the role host_names.",
            )


def _limits(node: NodeFacts) -> Iterable[Diagnosis]:
    if 0 <= node.open_files < _ENOUGH_FILES:
        yield Diagnosis(
            row="files-open",
            where=node.name,
            evidence=f"a login may open {node.open_files} files",
            cause="the limit of open files is too small for many peers",
            check="ulimit -n",
            fix="Run the role host_tuning.",
        )
    for folder, free in node.free.items():
        enough = _ENOUGH_SHM_BYTES if folder == "/dev/shm" else _ENOUGH_DISK_BYTES
        if free < enough:
            yield Diagnosis(
                row="shared-memory" if folder == "/dev/shm" else "disk-full",
                where=node.name,
                evidence=f"{folder} has {free >> 20} MiB of free space",
                cause=f"{folder} is full or too small",
                check=f"df -h {shlex.quote(folder)}",
                fix="Delete what is no longer needed there.",
            )


def _clock(node: NodeFacts) -> Iterable[Diagnosis]:
    if abs(node.skew_seconds) - node.skew_within_seconds > _SKEW_SECONDS:
        yield Diagnosis(
            row="clock-skew",
            where=node.name,
            evidence=f"its clock is {node.skew_seconds:+.1f} s off (within {node.skew_within_seconds:.1f} s)",
            cause="the clock is not disciplined",
            check="chronyc tracking",
            fix="Run the role time_sync.",
        )


def _interface(node: NodeFacts) -> Iterable[Diagnosis]:
    if node.job_interface and node.job_interface != node.interface:
        yield Diagnosis(
            row="wrong-interface",
            where=node.name,
            evidence=f"jobs use {node.job_interface}; {node.address} is on {node.interface or 'none'}",
            cause="job.env names an interface that the other nodes do not reach",
            check="cat /etc/clusterwright/job.env; ip -brief address",
            fix="Run the role collective_network.",
        )


def _odd(nodes: Sequence[NodeFacts]) -> Iterable[Diagnosis]:
    """Nodes that differ from the majority; every node where there is none."""
    kinds = {kind: None for node in nodes for kind in node.versions}
    for kind in kinds:
        yield from _odd_in(f"{kind} differs", {n.name: n.versions.get(kind, "none") for n in nodes})
    yield from _odd_in("MTU differs", {node.name: str(node.mtu) for node in nodes})


def _odd_in(what: str, values: Mapping[str, str]) -> Iterable[Diagnosis]:
    counted = Counter(values.values()).most_common()
    if len(counted) < 2:
        return
    value, count = counted[0]
    majority = value if count * 2 > len(values) else None
    for name, own in values.items():
        if own != majority:
            others = sorted({other for other in values.values() if other != own})
            yield Diagnosis(
                row="odd-node",
                where=name,
                evidence=f"{what}: {own[:60]} against {', '.join(other[:60] for other in others)}",
                cause="the node is not like the others" if majority else "the nodes are not alike",
                check="provision doctor -i the inventory, after the fix",
                fix="Make the nodes equal (ansible-playbook playbooks/site.yml).",
            )
