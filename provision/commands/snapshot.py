"""`provision lab snapshot`: what `provision lab freeze` has kept."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.table import Table

from provision.edges.terminal import Console
from provision.lab import snapshot
from provision.lab.requirements import require

app = typer.Typer(help="Labs that `freeze` has kept, for `up --from`.", no_args_is_help=True)
_out = Console()


@app.command("list")
def list_snapshots(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show every snapshot: its lab, what it takes of the disk, whether the lab stands on it now."""
    found = [snapshot.load(name) for name in snapshot.names()]
    if as_json:
        rows = [
            {
                "name": each.name,
                "lab": each.lab.name,
                "subnet": str(each.lab.subnet),
                "nodes": each.lab.count,
                "made": each.made,
                "bytes": each.bytes_on_disk,
                "in_use": bool(snapshot.users(each.name)),
            }
            for each in found
        ]
        typer.echo(json.dumps(rows, indent=2))
        return
    table = Table("snapshot", "lab", "nodes", "subnet", "made", "size", "in use", title="snapshots")
    for each in found:
        size, used = snapshot.in_gib(each.bytes_on_disk), "yes" if snapshot.users(each.name) else "-"
        lab = each.lab
        table.add_row(each.name, lab.name, str(lab.count), str(lab.subnet), each.made, size, used)
    _out.print(table)


@app.command()
def remove(name: Annotated[str, typer.Argument(help="A snapshot, see `list`.")]) -> None:
    """Delete a snapshot that no lab stands on."""
    require()
    with snapshot.held(name):
        snapshot.remove(name)
    _out.print(f"snapshot {name} is gone")
