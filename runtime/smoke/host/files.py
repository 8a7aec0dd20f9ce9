"""Whether each file of a node's environment is as the role conda_env installed it."""

from __future__ import annotations

from runtime.smoke.host.registry import Findings, HostCheck, Nodes


def _judge(nodes: Nodes) -> Findings:
    """Nodes whose environment is not what was installed, or where nobody can tell."""
    recorded = any(seen.known for seen in nodes.files.values())
    for host, seen in nodes.files.items():
        if recorded and not seen.known:
            found = "it has no record of what was installed, as the others have"
        elif seen.problem:
            found = f"whether its environment is as installed cannot be told: {seen.problem}"
        elif seen.different:
            rest = f" and {seen.different - len(seen.first)} more" * (seen.different > len(seen.first))
            found = f"files of its environment differ from what was installed: {', '.join(seen.first)}{rest}"
        else:
            continue
        yield nodes.finding("files", host, found, "Run the role conda_env, which builds it anew.")


def _not_applicable(nodes: Nodes) -> str:
    recorded = any(seen.known for seen in nodes.files.values())
    return "" if recorded else "no node has a record of what was installed (role conda_env)"


CHECK = HostCheck(
    id="host.files",
    names=("files",),
    place=80,
    judge=_judge,
    evidence=lambda nodes: f"as installed on {sum(seen.known for seen in nodes.files.values())} nodes",
    not_applicable=_not_applicable,
)
