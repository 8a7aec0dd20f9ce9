"""Asks all nodes of a site what they are: in parallel, each within a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from provision.diagnose.facts import NodeFacts, facts_in
from provision.edges import ssh
from provision.errors import CommandFailed
from provision.model import Machine

_ANSWER_SECONDS = 20.0
_AT_ONCE = 32
_SHOWN_CHARACTERS = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The nodes that answered, in the inventory's order, and why the others did not."""

    nodes: tuple[NodeFacts, ...]
    unreachable: dict[str, str]


def ask(machines: Sequence[Machine], on_answer: Callable[[str], None]) -> Asked:
    """Asks every machine; one that does not answer in time is in `unreachable`."""
    program = Path(__file__).with_name("node_program.py").read_text()
    names = [machine.name for machine in machines]
    nodes: dict[str, NodeFacts] = {}
    unreachable: dict[str, str] = {}
    with ThreadPoolExecutor(min(_AT_ONCE, len(machines))) as pool:
        asked = {pool.submit(_ask, machine, program, names): machine.name for machine in machines}
        for future in as_completed(asked):
            name = asked[future]
            try:
                nodes[name] = future.result()
            except CommandFailed as e:
                unreachable[name] = f"{e.found}. {e.fix}"
            on_answer(name)
    return Asked(nodes=tuple(nodes[name] for name in names if name in nodes), unreachable=unreachable)


def _ask(machine: Machine, program: str, names: Sequence[str]) -> NodeFacts:
    begun, heard = time.time(), 0.0

    def on_line(_: str) -> None:
        nonlocal heard
        heard = heard or time.time()

    words = ("python3", "-c", program, machine.address, *names)
    said = ssh.run(machine, words, timeout_seconds=_ANSWER_SECONDS, on_line=on_line).stdout
    try:
        clock, facts = facts_in(said)
        return NodeFacts(
            name=machine.name,
            address=machine.address,
            skew_seconds=clock - (begun + heard) / 2,
            skew_within_seconds=(heard - begun) / 2,
            **facts,
        )
    except ValueError as e:
        raise CommandFailed(
            f"read what {machine.name} says of itself",
            found=f"it does not answer as asked, but {said[:_SHOWN_CHARACTERS].strip()!r}",
            fix="A shell's start files (~/.bashrc) may print only for a person; `python3` must be Python's.",
        ) from e
