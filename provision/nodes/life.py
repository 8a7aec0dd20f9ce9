"""Makes a cluster follow an edit of its inventory: a node that comes, goes, is replaced or is drained."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from provision.audit import look
from provision.audit.findings import Finding
from provision.edges import cluster_lock
from provision.edges.files import text_of, write_file
from provision.edges.playbook import Play, play
from provision.errors import BadInput, ProvisionError
from provision.inventory import trust
from provision.inventory.members import Action, Members
from provision.inventory.site import read_members, secrets_of
from provision.inventory.site_files import edited_file
from provision.inventory.trust import controller_key
from provision.join.tokens import Tokens
from provision.nodes import node_record
from provision.nodes.steps import Step, own_way_step, smoke_step, steps

RECORD = "nodes.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What is asked: the action, its node, the site, and the edit of its inventory file.

    `group`: which of the cluster's groups a new node joins, where the site has several.
    """

    action: Action
    node: str
    inventory: Path
    edit: Callable[[str], str]
    group: str | None = None

    @property
    def hosts(self) -> Path:
        """The file that is edited.

        Raises:
            BadInput: no file, or more than one, can be the one.
        """
        return edited_file(self.inventory, self.action, self.node, self.group)


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """What came of it: nodes that did not answer, the seconds of each playbook, whether nodes were tested.

    `audit`: after a removal, who gets into the others whom neither the inventory nor this controller knows.
    """

    action: str
    node: str
    edited: bool
    pending: list[str]
    tested: bool
    steps: dict[str, float]
    seconds: float
    audit: list[Finding] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reporter:
    """Who is told: of each step when it begins, and of each line that it prints."""

    on_step: Callable[[Step], None]
    on_line: Callable[[str], None]


def preview(change: Change, environment: Mapping[str, str]) -> tuple[str, str, list[Step]]:
    """The text of the edited file before and after, and the playbooks that would run."""
    old = text_of(change.hosts)
    new = change.edit(old)
    before, secrets = read_members(change.inventory, environment=environment)
    _refuse(change, before, secrets)
    after = before.after(change.action, change.node)
    last = smoke_step(change.action, change.node, after, ())
    first = [own_way_step(change.node)] if change.action is Action.remove and after.names else []
    planned = [*first, *steps(change.action, change.node, before=before, after=after)]
    return old, new, [*planned, *([last] if last else [])]


def apply(change: Change, environment: Mapping[str, str], reporter: Reporter, play: Play = play) -> Changed:
    """Edits the inventory and has the nodes follow. Run again after a failure, it goes on.

    Args:
        play: runs one playbook.

    Raises:
        Busy: another controller works on the cluster.
        ProvisionError: the edit is refused, or a playbook failed.
    """
    started = time.monotonic()
    secrets = secrets_of(change.inventory, environment=environment)
    with cluster_lock.hold(secrets, f"provision node {change.action} {change.node}"):
        before, _ = read_members(change.inventory, environment=environment)  # as it is under the lock
        _refuse(change, before, secrets)
        after = before.after(change.action, change.node)
        removes = change.action is Action.remove
        if removes:
            _prove_own_way(change, after, environment, reporter, play)
        seen = _who_gets_in(change.inventory, environment) if removes else None
        edited = _edit(change, environment, reporter, play)
        if removes or change.action is Action.replace:
            Tokens(folder=secrets).void(change.node)
        if removes:
            trust.give_up_key(secrets)
        planned = steps(change.action, change.node, before=before, after=after)
        seconds = run_all(change.inventory, planned, environment, reporter, play)
        pending = node_record.pending(records(secrets), after.names)
        last = smoke_step(change.action, change.node, after, pending)
        seconds |= run_all(change.inventory, [last] if last else [], environment, reporter, play)
        found = _unknown(change.inventory, environment, seen) if seen and after.names else []
        if removes:  # last: until then it is by these that the command can be given again
            trust.forget(secrets, change.node)
    return Changed(
        action=str(change.action),
        node=change.node,
        edited=edited,
        pending=pending,
        tested=last is not None,
        steps=seconds,
        seconds=round(time.monotonic() - started, 1),
        audit=found,
    )


def _prove_own_way(
    change: Change, after: Members, environment: Mapping[str, str], reporter: Reporter, play: Play
) -> None:
    """Before the cluster's key is given up: the others refuse that where the controller logs in with it.

    Raises:
        CommandFailed: one did, by name.
    """
    if after.names:
        run_all(change.inventory, [own_way_step(change.node)], environment, reporter, play)


def _who_gets_in(inventory: Path, environment: Mapping[str, str]) -> look.Seen:
    """Before a removal: the keys that every node has, of the one that goes too, where it answers."""
    return look.look(look.read(inventory, environment), keys_only=True)


def _unknown(inventory: Path, environment: Mapping[str, str], before: look.Seen) -> list[Finding]:
    """After it: what the others let in, and whose that is."""
    site = look.read(inventory, environment)
    return look.findings(site, look.look(site, keys_only=True), before)


def records(secrets: Path) -> dict[str, node_record.Record]:
    """What is remembered of the cluster's nodes."""
    path = secrets / RECORD
    return node_record.parse(text_of(path) if path.is_file() else "")


def _refuse(change: Change, members: Members, secrets: Path) -> None:
    """Before a node is asked or a file changed. A node that was removed half way is known by its host keys.

    A cluster of an earlier version gets new keys by site.yml, which proves that everybody still gets in.
    """
    change.edit(text_of(change.hosts))
    Tokens(folder=secrets).read()
    known = {*members.names, *trust.nodes_in_ledger(secrets)}
    if (secrets / "cluster_key").is_file():
        controller_key(secrets, f"{change.action} node {change.node}")
    if change.action is Action.remove and change.node not in known:
        raise BadInput(
            f"remove node {change.node}",
            found=f"the nodes are {', '.join(members.names)}",
            fix="Name one of them.",
        )


def _edit(change: Change, environment: Mapping[str, str], reporter: Reporter, play: Play) -> bool:
    """Edits the file; what validate.yml has not let pass is put back. Returns whether anything changed."""
    hosts = change.hosts
    old = text_of(hosts)
    new = change.edit(old)
    if new == old:
        return False
    mode = hosts.stat().st_mode & 0o7777
    write_file(hosts, new, mode=mode)
    if change.action in (Action.add, Action.replace):
        words = ("playbooks/validate.yml", "--extra-vars", "validate_sources=false")
        try:
            play(change.inventory, words, environment=environment, on_line=reporter.on_line)
        except BaseException as e:
            _put_back(hosts, change.node, old, new, mode, e)
            raise
    return True


def _put_back(hosts: Path, node: str, old: str, new: str, mode: int, reason: BaseException) -> None:
    """Undoes the edit, unless somebody else has edited the file since.

    Raises:
        ProvisionError: it cannot be written.
    """
    if text_of(hosts) != new:
        return
    try:
        write_file(hosts, old, mode=mode)
    except OSError as e:
        raise ProvisionError(
            f"put {hosts} back as it was",
            found=f"{e.strerror}, after this: {reason or 'an interrupt'}",
            fix=f"Undo the edit of {node} there by hand: it is not known to be valid.",
        ) from e


def run_all(
    inventory: Path,
    wanted: Sequence[Step],
    environment: Mapping[str, str],
    reporter: Reporter,
    play: Play = play,
) -> dict[str, float]:
    """Runs playbooks one after the other; seconds of each, by its words.

    Raises:
        CommandFailed: one did not succeed.
    """
    seconds = {}
    for step in wanted:
        reporter.on_step(step)
        played = play(
            inventory,
            step.words,
            environment=environment,
            on_line=reporter.on_line,
            spares=step.spares,
        )
        seconds[shlex.join(step.words)] = round(played.seconds, 1)
    return seconds
