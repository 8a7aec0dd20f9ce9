"""The nodes of a site, who of them takes jobs, and what happens to one. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any


class Action(Enum):
    """What happens to a node; no StrEnum, since `replace` is a method of str."""

    add = "add"
    replace = "replace"
    remove = "remove"
    drain = "drain"
    undrain = "undrain"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True, kw_only=True)
class Members:
    """The nodes of a site in the inventory's order.

    `leader`: whose clock the others follow, "" for none; `mesh`: they reach each other over WireGuard.
    """

    names: tuple[str, ...]
    drained: frozenset[str]
    leader: str
    mesh: bool = False

    def working(self, *, without: Collection[str] = ()) -> list[str]:
        """Those that take jobs."""
        return [name for name in self.names if name not in self.drained and name not in without]

    def after(self, action: Action, name: str) -> Members:
        """The members once the inventory is edited."""
        kept = tuple(other for other in self.names if other != name or action is not Action.remove)
        names = (*kept, name) if action is Action.add and name not in kept else kept
        drained = self.drained - {name} if action is Action.undrain else self.drained & set(names)
        drained = drained | {name} if action is Action.drain else drained
        leader = names[0] if self.leader else ""
        return Members(names=names, drained=drained, leader=leader, mesh=self.mesh)


MEMBER_VARIABLES = ("cluster_drained", "time_sync_pools", "time_sync_servers", "wireguard_mesh_enabled")


def members_in(variables: Mapping[str, Mapping[str, Any]]) -> Members:
    """From MEMBER_VARIABLES of each node, where it has them."""
    names = tuple(variables)
    drained = {name for name in names if variables[name].get("cluster_drained") is True}
    first = variables[names[0]] if names else {}
    leads = first.get("time_sync_pools") == [] and not first.get("time_sync_servers")
    return Members(
        names=names,
        drained=frozenset(drained),
        leader=names[0] if leads else "",
        mesh=first.get("wireguard_mesh_enabled") is True,
    )
