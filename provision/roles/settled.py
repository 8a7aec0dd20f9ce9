"""Which roles would change nothing on which nodes, by one look at the start of a run of site.yml."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

# Actions that change nothing on a node and nothing that a role decides by. All others may have, whatever they
# report: `command` with changed_when: false as well.
READING = frozenset(
    {
        *("look", "observe", "prove_key", "assert", "debug"),
        *("include_tasks", "include_role", "import_tasks", "import_role", "meta"),
    }
)


@dataclass(slots=True)
class SettledRoles:
    """What the look said of each node, until anything happens anywhere that can have changed it.

    Roles read other nodes (over ssh, as a clock's source), so that one change makes every answer an old one.
    """

    _by_node: dict[str, frozenset[str]] = field(default_factory=dict)

    def keep(self, node: str, roles: Iterable[str]) -> None:
        """Takes what a look said of a node that has just ended."""
        self._by_node[node] = frozenset(roles)

    def after(self, action: str, *, changed: bool, failed: bool) -> None:
        """A task with this action ended on some node."""
        if changed or failed or action.removeprefix("ansible.builtin.") not in READING:
            self._by_node.clear()

    def are_settled(self, nodes: Sequence[str], role: str) -> bool:
        """Whether the role would change nothing on any of these nodes."""
        return bool(nodes) and all(role in self._by_node.get(node, ()) for node in nodes)


THIS_RUN = SettledRoles()
