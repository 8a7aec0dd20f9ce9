"""Which kind of an environment (cuda128, cpu) all nodes of a cluster run, by drivers and cards. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from provision.errors import BadInput
from provision.roles.gpu_driver import Card, version_of

CPU = "cpu"
_ARCHITECTURE = "x86_64"  # of whose wheels the table tells what they are built for
_LISTED = 3

Capability = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A build of torch: the oldest driver that runs it, and the capabilities that it has machine code for.

    `also`: other versions of torch that locks of this kind hold, with code for the same.
    `ptx`: cards from this capability on run it by translation, with a driver from `ptx_driver` on.
    """

    name: str
    torch: str
    cuda: str
    driver: str
    architectures: Sequence[str]
    also: Sequence[str] = ()
    ptx: str = ""
    ptx_driver: str = ""

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.name} (torch {self.torch}, CUDA {self.cuda})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """PCI device numbers of cards, and the least capability among them."""

    first: int
    below: int
    capability: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """envs/kinds.yml: kinds from the oldest to the newest."""

    kinds: Sequence[Kind]
    cards: Sequence[Range]

    def named(self, name: str) -> Kind | None:
        return next((kind for kind in self.kinds if kind.name == name), None)

    def capability(self, number: int) -> str:
        """That of a card by its PCI device number; "" for one that the table does not know."""
        return next((cards.capability for cards in self.cards if cards.first <= number < cards.below), "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A node's driver and its cards; without cards it has a CPU alone.

    `problem` is why it could not be told; `will_have` that the driver is the one that site.yml installs.
    """

    name: str
    driver: str = ""
    cards: Sequence[Card] = ()
    problem: str = ""
    will_have: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The kind and why, in one line; or, where there is none, what speaks against it by node.

    `problem` concerns the site, not one of its nodes.
    """

    kind: str = ""
    why: str = ""
    refused: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""


def table_of(stated: Mapping[str, Any]) -> Table:
    """What envs/kinds.yml states."""
    return Table(
        kinds=[Kind(**kind) for kind in stated["kinds"]], cards=[Range(**cards) for cards in stated["cards"]]
    )


def choose(
    nodes: Sequence[Node],
    table: Table,
    locked: Iterable[str],
    *,
    environment: str,
    architecture: str = _ARCHITECTURE,
) -> Choice:
    """The newest kind that every node runs and that the environment has a lock of.

    Args:
        locked: the kinds of its locks.
        environment: its name.
    """
    if untold := {node.name: _untold(node) for node in nodes if node.problem}:
        return Choice(refused=untold)
    locked = list(locked)
    having = [node for node in nodes if node.cards]
    if not having:
        return _without_cards(locked, environment)
    if architecture != _ARCHITECTURE:
        told = f"envs/kinds.yml tells of {_ARCHITECTURE} alone which cards a build is for"
        return Choice(problem=f"{told}, not of {architecture}. Name the kind: cluster_environment_kind")
    kinds = [kind for kind in reversed(table.kinds) if kind.name in locked]
    blocked = {kind.name: _blocked(kind, having) for kind in kinds}
    chosen = next((kind for kind in kinds if not blocked[kind.name]), None)
    if len(having) < len(nodes):
        return _some_without(nodes, having, chosen)
    if chosen is None:
        return _none(having, kinds, table, environment)
    newer = kinds[kinds.index(chosen) - 1] if chosen is not kinds[0] else None
    because = _listed(blocked[newer.name]) if newer else f"all nodes run it ({_range(having)})"
    return Choice(kind=chosen.name, why=f"{chosen.title}: {because}")


def wheels_name(kind: str, architecture: str) -> str:
    """The file of a lock of wheels, as the default of conda_env_wheel_lock has it."""
    return f"wheels-{kind}{'' if architecture == _ARCHITECTURE else f'-{architecture}'}.lock"


def locked_kinds(names: Iterable[str], architecture: str = _ARCHITECTURE) -> list[str]:
    """The kinds of which there are locks of wheels for these processors, by the names of files."""
    suffix = ".lock" if architecture == _ARCHITECTURE else f"-{architecture}.lock"
    kinds = [
        name.removeprefix("wheels-").removesuffix(suffix) for name in sorted(names) if name.endswith(suffix)
    ]
    return [kind for kind in kinds if kind.isalnum()]


def refusal(kind: Kind, node: Node) -> str:
    """Why a node does not run a kind, to go on after its name; "" where it does."""
    if lacking := no_code(kind, node):
        return lacking
    if not _is_at_least(node.driver, kind.driver):
        return f"{_has(node)}, and {kind.name} needs {kind.driver} or newer"
    return ""


def no_code(kind: Kind, node: Node) -> str:
    """Of which of its cards a kind's build has no code, and why; "" where it has it for all of them."""
    for card in node.cards:
        if not card.capability:
            return f"has {card.name}, of which nobody says its compute capability"
        able = _numbers(card.capability)
        if any(able[:1] == code[:1] and able >= code for code in map(_numbers, kind.architectures)):
            continue
        said = f"has {card.name} of compute capability {card.capability}, and {kind.name} has code for "
        said += f"{kind.architectures[0]} to {kind.architectures[-1]}"
        if not kind.ptx or able < _numbers(kind.ptx):
            return said
        if not _is_at_least(node.driver, kind.ptx_driver):
            return f"{said}, which driver {kind.ptx_driver} or newer translates; it {_has(node)}"
    return ""


def kept_problem(kind_name: str, node: Node, table: Table, *, is_chosen: bool) -> str:
    """What speaks against the kind in use on a node whose driver was found new enough; "" where nothing does.

    Args:
        is_chosen: whether `auto` chose it for the nodes of then, not a person.
    """
    kind = table.named(kind_name)
    if is_chosen and bool(node.cards) != (kind_name != CPU):
        has, others = ("GPUs", "without") if node.cards else ("no GPU", "with")
        said = f"it has {has}, and the kind {kind_name} was chosen for nodes {others} them"
        return f"{said}. Where it is to be so, say it: cluster_environment_kind: {kind_name}"
    if kind is None or not (lacking := no_code(kind, node)):
        return ""
    return f"it {lacking}. It runs {_able(node, table) or 'none of the kinds'} (cluster_environment_kind)"


def recorded(text: str, environment: str, *, path: str) -> str:
    """The kind that was chosen for an environment, from environment_kinds.yml; "" where none was.

    Raises:
        BadInput: the file is damaged.
    """
    return _records(text, path).get(environment, {}).get("kind", "")


def with_choice(text: str, environment: str, *, kind: str, why: str, path: str) -> dict[str, dict[str, str]]:
    """What environment_kinds.yml says by environment once this choice is in it.

    Raises:
        BadInput: the file is damaged.
    """
    return {**_records(text, path), environment: {"kind": kind, "why": why}}


def _records(text: str, path: str) -> dict[str, dict[str, str]]:
    try:
        found = yaml.safe_load(text) or {}
        if all(isinstance(said["kind"], str) and said["kind"].isalnum() for said in found.values()):
            return dict(found)
    except (yaml.YAMLError, AttributeError, TypeError, KeyError):
        pass
    raise BadInput(
        f"read which kinds of environments were chosen, in {path}",
        found="it does not say that",
        fix="Mend it, or move it away: the next site.yml chooses anew.",
    )


def chosen_lock(lock: str) -> str:
    """The path of the lock of wheels.

    Raises:
        BadInput: no kind is chosen yet, so that there is none.
    """
    if lock:
        return lock
    raise BadInput(
        "build the environment",
        found="cluster_environment_kind is auto, and no kind was chosen yet for this site",
        fix="Run site.yml as a whole, or with environment_kind among its --tags.",
    )


def _untold(node: Node) -> str:
    return f"{node.problem}. Mend that, or name the kind yourself: cluster_environment_kind"


def _without_cards(locked: Sequence[str], environment: str) -> Choice:
    if CPU not in locked:
        lacking = f"no node has an NVIDIA GPU, and {environment} has no lock of the kind cpu"
        return Choice(problem=f"{lacking}: provision env lock {environment} --kind cpu")
    return Choice(kind=CPU, why="cpu: no node has an NVIDIA GPU")


def _some_without(nodes: Sequence[Node], having: Sequence[Node], best: Kind | None) -> Choice:
    who = _names([node.name for node in having])
    fix = f"{best.name} (nodes without GPUs run it on their CPU) or cpu" if best else "cpu"
    said = f"it has no NVIDIA GPU, and {who} {'has' if len(having) == 1 else 'have'}"
    text = f"{said}. If that is to be so, name the kind: cluster_environment_kind: {fix}"
    return Choice(refused={node.name: text for node in nodes if not node.cards})


def _unlocked(environment: str, possible: Kind | None) -> str:
    said = f"the nodes have NVIDIA GPUs, and {environment} has no lock of a kind that all of them run"
    if possible is None:
        return f"{said}, nor does envs/kinds.yml know one"
    return f"{said}. They run {possible.title}: provision env lock {environment} --kind {possible.name}"


def _blocked(kind: Kind, nodes: Sequence[Node]) -> dict[str, str]:
    reasons = {node.name: refusal(kind, node) for node in nodes}
    return {name: reason for name, reason in reasons.items() if reason}


def _none(nodes: Sequence[Node], kinds: Sequence[Kind], table: Table, environment: str) -> Choice:
    """Who keeps the others from the kind that most nodes run; of equal ones that with the oldest driver.

    A new driver is nearer than another lock; where no driver helps, a lock can.
    """

    def cost(kind: Kind) -> tuple[int, int, Capability]:
        lacking = [node for node in nodes if no_code(kind, node)]
        return len(_blocked(kind, nodes)), len(lacking), _numbers(kind.driver)

    best = min(kinds, key=cost, default=None)
    possible = next((kind for kind in reversed(table.kinds) if not _blocked(kind, nodes)), None)
    if best is None or (possible and any(no_code(best, node) for node in nodes)):
        return Choice(problem=_unlocked(environment, possible))
    blocked = _blocked(best, nodes)
    others = [node for node in nodes if node.name not in blocked]
    theirs = next((kind for kind in kinds if others and not _blocked(kind, others)), best)
    asked = f"cannot run {best.title} as the others" if others else f"runs no kind of {environment}"
    odd = [node for node in nodes if node.name in blocked]
    return Choice(refused={node.name: f"{asked}: {_odd(node, best, theirs, table)}" for node in odd})


def _odd(node: Node, best: Kind, theirs: Kind, table: Table) -> str:
    """Why a node does not run a kind, and what it needs for it or runs instead.

    Args:
        theirs: the newest kind that all others run.
    """
    if all(no_code(kind, node) for kind in table.kinds) and all(card.capability for card in node.cards):
        cards = ", ".join(f"{card.name} ({card.capability})" for card in node.cards)
        oldest = table.kinds[0].architectures[0]
        return f"it has {cards}, and no kind has code for that: the oldest is for {oldest}"
    said = [f"it {refusal(best, node)}"]
    if theirs is not best and not no_code(theirs, node):
        said.append(f"{theirs.name}, which all others run, needs {theirs.driver}")
    if able := _able(node, table):
        said.append(f"it runs {able}")
    return "; ".join(said)


def _able(node: Node, table: Table) -> str:
    names = [kind.name for kind in table.kinds if not refusal(kind, node)]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _has(node: Node) -> str:
    return f"{'gets' if node.will_have else 'has'} driver {node.driver}"


def _listed(reasons: Mapping[str, str]) -> str:
    told = [f"{name} {why}" for name, why in list(reasons.items())[:_LISTED]]
    more = len(reasons) - _LISTED
    return "; ".join([*told, *([f"and {more} more"] if more > 0 else [])])


def _names(names: Sequence[str]) -> str:
    more = len(names) - _LISTED
    return ", ".join([*names[:_LISTED], *([f"{more} more"] if more > 0 else [])])


def _range(nodes: Sequence[Node]) -> str:
    oldest = min((node.driver for node in nodes), key=_numbers)
    cards = _names(list(dict.fromkeys(card.name for node in nodes for card in node.cards)))
    return f"driver {oldest} or newer; {cards}"


def _is_at_least(driver: str, least: str) -> bool:
    """A driver of which only the branch is known (580) counts as the newest of that branch."""
    has, needs = _numbers(driver), _numbers(least)
    return has >= needs[: len(has)]


def _numbers(text: str) -> Capability:
    return version_of(text) or ()
