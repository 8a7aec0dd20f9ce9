"""A site of three nodes, its secrets, and changes of its nodes in which playbooks are only noted."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import yaml

from provision.edges import cluster_lock
from provision.edges.files import write_file
from provision.edges.playbook import Played
from provision.inventory import edits
from provision.inventory.members import Action
from provision.join.tokens import Tokens
from provision.nodes import node_record
from provision.nodes.life import Change, Changed, Reporter, apply
from provision.nodes.steps import Step

ROOT = Path(__file__).parents[3]
# Comments, quotes, blanks and ends of lines are a person's own. No ssh answers at these ports.
HOSTS = b"""\
---
# rack 7\r
cluster:
  hosts:
    te1: {ansible_host: 127.0.0.1, ansible_port: 9}
    te2:   {ansible_host: "127.0.0.2", ansible_port: 9}   # on loan\t
    te3: {ansible_host: 127.0.0.3, ansible_port: 9}

  vars: {time_sync_pools: [], ansible_ssh_private_key_file: /nonexistent}
"""
KEY = "ssh-ed25519 AAAA of the cluster"
EDITS: dict[Action, Callable[[str, str], str]] = {
    Action.add: partial(edits.add, address="127.0.0.4", slots=None),
    Action.replace: partial(edits.replace, address="127.0.0.5"),
    Action.remove: edits.remove,
    Action.drain: edits.drain,
    Action.undrain: edits.undrain,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """A playbook that was asked for, and what the controller kept then."""

    words: str
    spares: bool
    hosts: bytes
    has_key: bool
    retired: list[str]
    ledgers: list[list[str]]
    tokens: list[str]
    holder: str


@dataclass(slots=True)
class Cluster:
    """A site of three nodes with its secrets, and a stand-in for ansible-playbook that notes each call.

    `happens`: what takes place in a playbook whose words begin so; the longest beginning counts.
    """

    folder: Path
    happens: dict[str, Callable[[], object]] = field(default_factory=dict)
    words: list[str] = field(default_factory=list)
    moments: list[Moment] = field(default_factory=list)
    reported: list[str] = field(default_factory=list)

    @property
    def hosts(self) -> Path:
        return self.folder / "hosts.yml"

    @property
    def secrets(self) -> Path:
        return self.folder / "secrets"

    def change(self, action: Action, node: str) -> Change:
        return Change(
            action=action, node=node, inventory=self.folder, edit=lambda text: EDITS[action](text, node)
        )

    def apply(self, action: Action, node: str) -> Changed:
        self.words.clear()
        self.moments.clear()
        return self.apply_change(self.change(action, node))

    def apply_change(self, change: Change) -> Changed:
        def report(step: Step) -> None:
            self.reported.append(shlex.join(step.words))

        return apply(change, os.environ, Reporter(on_step=report, on_line=print), self.play)

    def play(
        self,
        inventory: Path,
        words: Sequence[str],
        *,
        environment: Mapping[str, str],
        on_line: Callable[[str], None],
        spares: bool = False,
    ) -> Played:
        assert (inventory, environment, on_line) == (self.folder, os.environ, print)
        said = shlex.join(words)
        self.words.append(said)
        self.moments.append(self.now(said, spares=spares))
        beginnings = [beginning for beginning in self.happens if said.startswith(beginning)]
        if beginnings:
            self.happens[max(beginnings, key=len)]()
        return Played(words=tuple(words), seconds=1.0, unreachable=False)

    def now(self, words: str = "", *, spares: bool = False) -> Moment:
        retired = self.secrets / "retired_keys.pub"
        ledgers = [self.secrets / name for name in ("host_keys.yml", "mesh_keys.yml")]
        holder = cluster_lock.holder(self.secrets)
        return Moment(
            words=words,
            spares=spares,
            hosts=self.hosts.read_bytes(),
            has_key=(self.secrets / "cluster_key").exists() or (self.secrets / "cluster_key.pub").exists(),
            retired=retired.read_text().splitlines() if retired.exists() else [],
            ledgers=[sorted(yaml.safe_load(path.read_text())) for path in ledgers],
            tokens=sorted(name for token in Tokens(folder=self.secrets).read() for name in token.machines),
            holder=holder.what if holder else "",
        )

    def ran(self, playbook: str, *, good: str, bad: str = "", now: str) -> Callable[[], None]:
        """What the callback cluster_record remembers of such a run."""

        def remember() -> None:
            path = self.secrets / "nodes.json"
            records = node_record.parse(path.read_text() if path.exists() else "")
            run = {"playbook": playbook, "tells": True, "now": now}
            after = node_record.ran(records, good=good.split(), bad=bad.split(), **run)
            write_file(path, node_record.render(after), mode=0o600)

        return remember


def made(folder: Path) -> Cluster:
    """The site, with its keys, ledgers, and tokens of two nodes."""
    (folder / "00-groups.yml").symlink_to(ROOT / "inventory" / "groups.yml")
    (folder / "hosts.yml").write_bytes(HOSTS)
    (folder / "hosts.yml").chmod(0o640)
    secrets = folder / "secrets"
    secrets.mkdir(mode=0o700)
    for name in ("cluster_key", "controller_key"):
        (secrets / name).write_text("private\n")
        (secrets / f"{name}.pub").write_text(f"{KEY}\n")
    for name in ("host_keys.yml", "mesh_keys.yml"):
        (secrets / name).write_text(yaml.safe_dump({node: ["key"] for node in ("te1", "te2", "te3")}))
    for node, address in (("te2", "127.0.0.2"), ("te3", "127.0.0.3")):
        Tokens(folder=secrets).make({node: address}, shared=False, expires=2e9)
    return Cluster(folder)


def files(cluster: Cluster) -> dict[str, bytes]:
    """All that lies in a site, but for its lock, which says who had it last."""
    paths = [path for path in cluster.folder.rglob("*") if path.is_file() and path.name != "controller.lock"]
    return {str(path): path.read_bytes() for path in paths}
