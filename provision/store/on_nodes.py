"""The store on the nodes of a site: asked, delivered to, and switched to another tree on all at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from provision.edges import ssh, ssh_channel
from provision.errors import CommandFailed
from provision.model import Machine
from provision.printable import one_line
from provision.store.delivery import Delivered, Delivery, Part, Plan
from provision.store.program import node_program
from provision.store.source import FolderSource

_AT_ONCE = 32
_SECONDS, _FULL_SECONDS = 120.0, 7200.0
_SHOWN = 500

Answer = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a site's nodes have their store and the links to models, and who reaches the others by ssh."""

    store: str
    models: str
    user: str


PLACE_VARIABLES = ("cluster_data_path", "cluster_user", "cluster_store_path", "cluster_models_path")
HUB_VARIABLES = ("cluster_hub_token",)


def place_in(variables: Mapping[str, Any]) -> Place:
    """As role cluster has it by default."""
    data = variables.get("cluster_data_path", "/data")
    return Place(
        store=str(variables.get("cluster_store_path", f"{data}/store")),
        models=str(variables.get("cluster_models_path", f"{data}/models")),
        user=str(variables.get("cluster_user", "trainer")),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What nodes said, by name, and why others did not do what was asked."""

    said: Mapping[str, Answer]
    failed: Mapping[str, str]


def ask(machines: Sequence[Machine], word: str, plan: Answer, *, long: bool = False) -> Answers:
    """Asks all at once; an answer is JSON, and its words are not believed to be ours."""

    def one(machine: Machine) -> Answer | str:
        words = ("python3", "-c", node_program(), word, json.dumps(plan))
        try:
            said = ssh.run(machine, words, timeout_seconds=_FULL_SECONDS if long else _SECONDS).stdout
            answer = json.loads(said)
        except CommandFailed as e:
            return e.found
        except (ValueError, RecursionError):
            return "it does not answer as asked"
        if not isinstance(answer, dict):
            return "it does not answer as asked"
        return one_line(str(answer["error"]))[:_SHOWN] if "error" in answer else answer

    with ThreadPoolExecutor(max(1, min(_AT_ONCE, len(machines)))) as pool:
        found = dict(zip((machine.name for machine in machines), pool.map(one, machines), strict=True))
    return Answers(
        said={name: answer for name, answer in found.items() if not isinstance(answer, str)},
        failed={name: answer for name, answer in found.items() if isinstance(answer, str)},
    )


def deliver(
    machines: Sequence[Machine],
    plan: Plan,
    source: FolderSource | None,
    on_change: Callable[[Mapping[str, Part]], None],
) -> Delivered:
    """Has these machines hold a tree; their order is the chain's."""
    doors = {machine.name: partial(ssh_channel.opened, machine) for machine in machines}
    return Delivery(plan, doors, source, on_change).run()


def switch(machines: Sequence[Machine], name: str, digest: str, place: Place) -> None:
    """Has a name lead to a tree on all of these, or on none; "" takes the name away.

    Raises:
        CommandFailed: one of them did not; the others lead where they led before.
    """
    plan = {"store": place.store, "links": place.models, "name": name, "digest": digest}
    answers = ask(machines, "lead", plan)
    if not answers.failed:
        return
    back = {node: str(answer.get("before", "")) for node, answer in answers.said.items()}
    for machine in machines:
        if machine.name in back:
            ask([machine], "lead", {**plan, "digest": back[machine.name]})
    raise CommandFailed(
        f"have {name} lead to {digest[:12]} on every node",
        found="; ".join(f"{node}: {why}" for node, why in answers.failed.items()),
        fix="Mend that, then run it again: what was delivered stays. All nodes lead where they did before.",
    )
