"""`provision status`: what each node is now, and what went wrong last."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from provision.diagnose.questions import ask
from provision.edges import cluster_lock
from provision.edges.terminal import Console
from provision.inventory.site import read_whole
from provision.nodes.life import records
from provision.nodes.node_record import NodeStatus, is_well, status_of

_COLUMNS = 140
_out = Console(highlight=False, width=None if sys.stdout.isatty() else _COLUMNS)
_progress = Console(stderr=True)


def status(
    inventory: Annotated[
        Path, typer.Option("--inventory", "-i", help="The site, for example inventory/lab.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show every node: reachable, versions, environment digest, last smoke test, last failure.

    Exit status: 0 jobs can start on every node that is not drained, 1 not, 2 bad input.
    """
    site = read_whole(inventory, environment=os.environ)
    machines, drained, secrets = site.machines, site.members.drained, site.secrets
    with _progress.status(f"asking {len(machines)} nodes"):
        asked = ask(machines, lambda _: None)
    found = status_of(
        {machine.name: machine.address for machine in machines},
        asked.nodes,
        unreachable=asked.unreachable,
        drained=drained,
        records=records(secrets),
        now=datetime.now(UTC),
    )
    holder = cluster_lock.holder(secrets)
    if as_json:
        nodes = [asdict(node) for node in found]
        typer.echo(json.dumps({"held_by": asdict(holder) if holder else None, "nodes": nodes}, indent=2))
    else:
        _show(found)
        if holder:
            _say(str(holder))
    raise typer.Exit(0 if all(is_well(node) for node in found if not node.drained) else 1)


def _show(nodes: Sequence[NodeStatus]) -> None:
    table = Table("node", "address", "state", "environment", "versions", "smoke test")
    for node in nodes:
        versions = "\n".join(f"{name} {value}" for name, value in node.versions.items())
        cells = (node.name, node.address, _state(node), node.digest[:12], versions, _proof(node))
        table.add_row(*map(escape, cells))
    _out.print(table)
    for node in nodes:
        if node.last_failure:
            failure = node.last_failure
            since = " (a run was good since)" if node.last_good_run > failure.when else ""
            _say(f"{node.name}: last failure {failure.when}{since}, {failure.playbook}, {failure.step}")
            for line in failure.said.splitlines()[-5:]:
                _say(f"  {line}")


def _say(line: str) -> None:
    _out.print(line, markup=False, soft_wrap=True)


def _state(node: NodeStatus) -> str:
    words = [f"unreachable: {node.unreachable}" if node.unreachable else "answers"]
    words += ["drained"] if node.drained else []
    words += [f"pending since {_minute(node.pending_since)}"] if node.pending_since else []
    return "\n".join(words)


def _proof(node: NodeStatus) -> str:
    if node.proof is None:
        return "" if node.unreachable else "no certificate"
    ends = "expired" if node.proof.expired else "until"
    by = f" by {node.proof.signer}" if node.proof.signer else ""
    times = f"passed {_minute(node.proof.issued)}{by}\n{ends} {_minute(node.proof.expires)}"
    return f"{times}\n{', '.join(node.proof.nodes)}"


def _minute(time: str) -> str:
    """A time in ISO 8601, to the minute."""
    return time[:16].replace("T", " ")
