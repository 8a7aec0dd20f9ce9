"""`provision audit`: who and what is on the nodes that neither site.yml nor the inventory put there."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from provision.audit import look as auditing
from provision.edges.terminal import Console

_out = Console(highlight=False)
_progress = Console(stderr=True)


def audit(
    inventory: Annotated[
        Path, typer.Option("--inventory", "-i", help="The site, for example inventory/lab.")
    ],
    keys_only: Annotated[
        bool, typer.Option("--keys-only", help="Who gets in; leave out what takes a minute a node.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Name what nodes have that nobody put there: keys, listeners, modes, setuid programs, changed files.

    It changes nothing. Exit status: 0 nothing found, 1 something found or a node not seen, 2 bad input.
    """
    site = auditing.read(inventory, os.environ)
    with _progress.status(f"looking at {len(site.machines)} nodes"):
        seen = auditing.look(site, keys_only=keys_only)
    found = [*auditing.of_controller(site.secrets), *auditing.findings(site, seen)]
    if as_json:
        nodes = [machine.name for machine in site.machines]
        typer.echo(json.dumps({"nodes": nodes, "findings": [asdict(one) for one in found]}, indent=2))
    else:
        for one in found:
            _say(f"{one.node}: {one.what}")
            _say(f"  why   {one.why}\n  mend  {one.fix}")
        _say(f"{len(found)} findings on {len(site.machines)} nodes and the controller")
    raise typer.Exit(1 if found else 0)


def _say(line: str) -> None:
    _out.print(line, markup=False, soft_wrap=True)
