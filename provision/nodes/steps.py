"""What is done when a node comes, goes or is replaced: all on that node, one call to the others. Pure."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from provision.inventory.members import Action, Members

_SITE, _MEMBERS, _RESTORE = "playbooks/site.yml", "playbooks/members.yml", "playbooks/restore.yml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A playbook with its words, and why it runs. `spares`: nodes that do not answer are no failure of it."""

    words: tuple[str, ...]
    reason: str
    spares: bool = False


_TELL = Step(
    words=(_MEMBERS,),
    reason="one login and one call to every node: what it is told does not lock you out",
    spares=True,
)
_CLOCKS = Step(
    words=(_SITE, "--tags", "time_sync"),
    reason="the others may follow the clock of another machine",
    spares=True,
)


def _mesh(accept: tuple[str, ...]) -> Step:
    return Step(
        words=(_SITE, "--tags", "wireguard_mesh", *accept),
        reason="all nodes take it into the mesh, through which it reaches them",
        spares=True,
    )


def _admission(leader: str) -> Step:
    """The clock that leads answers the nodes alone, so it has to know of one before that asks."""
    return Step(
        words=(_SITE, "--limit", leader, "--tags", "time_sync"),
        reason=f"the clock of {leader} answers the nodes alone",
        spares=True,
    )


def steps(action: Action, name: str, *, before: Members, after: Members) -> list[Step]:
    """What runs once the inventory is edited, in order; the smoke test comes after it.

    Args:
        before: the members before the edit, which tell whose clock led.
        after: and since.
    """
    comes = action in (Action.add, Action.replace)
    # By a run that failed; whether it led is not in the inventory any more.
    has_gone = action is Action.remove and name not in before.names
    leads = after.leader if before.leader == after.leader != name and not has_gone else ""
    accept = _variables({"ssh_trust_replaced_nodes": [name]}) if action is Action.replace else ()
    found = [_mesh(accept)] if after.mesh and comes else []
    found += [_admission(leads)] if leads and comes else []
    if comes:
        found.append(_full(name, accept))
    found.append(_TELL)
    moved = before.leader != after.leader or (action is Action.replace and after.leader == name)
    if moved or (has_gone and after.leader):
        found.append(_CLOCKS)
    if leads and action is Action.remove:
        found.append(_admission(leads))
    return found


def own_way_step(leaves: str) -> Step:
    """What the others refuse of a new cluster key; it changes nothing."""
    words = (_MEMBERS, "--check", "--limit", f"all:!{leaves}", *_variables({"ssh_trust_gives_up": True}))
    return Step(words=words, reason="your own way in must not be by the key that is given up", spares=True)


def are_all(names: Collection[str], members: Members) -> bool:
    """Whether there is no other node: one playbook then does everything, the smoke test too."""
    return set(names) >= set(members.names)


def restore_steps(names: Collection[str], members: Members) -> list[Step]:
    """What makes nodes of machines from an image; unless they are all nodes, the smoke test is to follow.

    Args:
        names: the nodes that they are.
    """
    chosen = [name for name in members.names if name in names]
    accept = _variables({"ssh_trust_replaced_nodes": chosen})
    if are_all(names, members):
        return [Step(words=(_RESTORE, *accept), reason="what is one machine's own, and the test of all")]
    limit = ("--limit", ",".join(chosen), "--skip-tags", "smoke_test")
    reason = f"what is one machine's own, on {', '.join(chosen)}"
    found = [Step(words=(_RESTORE, *limit, *accept), reason=reason), _TELL]
    if members.leader in names:
        return [*found, _CLOCKS]
    return [_admission(members.leader), *found] if members.leader else found


def _full(name: str, accept: tuple[str, ...]) -> Step:
    words = (_SITE, "--limit", name, "--skip-tags", "smoke_test", *accept)
    return Step(words=words, reason=f"everything, on {name} alone")


def smoke_step(action: Action, name: str, after: Members, pending: Collection[str]) -> Step | None:
    """The smoke test: of the new node's pairs, or of all after a removal, which voids their certificates.

    None where jobs are not concerned: nodes were only drained or taken back, or the new one is drained.

    Args:
        pending: nodes that do not answer; the test leaves them out, and so does its certificate.
    """
    working = after.working(without=pending)
    if action in (Action.drain, Action.undrain) or not working:
        return None
    if action is Action.remove:
        reason = f"certificates of tests with {name} no longer count"
        return _smoke(working[0], [], after, pending, reason)
    return new_pairs_step([name], after, pending)


def new_pairs_step(names: Collection[str], members: Members, pending: Collection[str]) -> Step | None:
    """The smoke test of the pairs of new nodes; None where all of them are drained."""
    new = [name for name in members.working(without=pending) if name in names]
    if not new:
        return None
    return _smoke(new[0], new, members, pending, f"the pairs of {', '.join(new)}, then collectives over all")


def _smoke(first: str, new: list[str], members: Members, pending: Collection[str], reason: str) -> Step:
    left_out = [one for one in members.working() if one in pending]
    values = {"smoke_test_new": new, "smoke_test_left_out": left_out}
    words = (_SITE, "--limit", first, "--tags", "smoke_test", *_variables(values))
    return Step(words=words, reason=reason)


def _variables(values: Mapping[str, Sequence[str] | bool]) -> tuple[str, ...]:
    given = {name: value for name, value in values.items() if value}
    return ("--extra-vars", json.dumps(given)) if given else ()
