"""Whether a machine is a node of another cluster, by what its own record says of that. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence

_WORD = "cluster "
_NAMED = 5


def refusal(answer: Sequence[str], *, name: str, nodes: Sequence[str], former: str) -> str:
    """Why this site does not take the machine from another cluster; "" where it is in none.

    Args:
        answer: the lines of node_access's answer, one of them `cluster ["NAME", ["NODE", ...]]`.
        name: of this site's cluster.
        nodes: of this site, by name.
        former: the cluster that this site takes the place of.
    """
    other, members = _recorded(answer)
    strangers = [member for member in members if member not in nodes]
    if other in ("", name, former) or not strangers:
        return ""
    return (
        f"it is a node of the cluster {other}, by its record, together with {', '.join(strangers[:_NAMED])}, "
        "which this inventory does not have and which would not reach it any more. Take it out there first, "
        "with that site's inventory: playbooks/teardown.yml with --limit, then provision node remove. Where "
        "it was taken out, or that cluster is gone or has this one's name now, say so: "
        f"cluster_former_name: {other}"
    )


def _recorded(answer: Sequence[str]) -> tuple[str, list[str]]:
    """Name and nodes; none where the machine has no record, or one that cannot be read."""
    line = next((line for line in answer if line.startswith(_WORD)), _WORD)
    try:
        found = json.loads(line.removeprefix(_WORD))
    except (ValueError, RecursionError):
        return "", []
    match found:
        case [str(name), list(members)] if name.isprintable():
            return name, [one for one in members if isinstance(one, str) and one.isprintable()]
    return "", []
