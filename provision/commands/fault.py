"""`provision lab fault`: break nodes of a lab on purpose, and mend them."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.table import Table

from provision.commands.which_lab import Name, existing
from provision.edges.terminal import Console
from provision.lab import lab
from provision.lab.fault import injection, record
from provision.lab.fault.catalogue import CATALOGUE, fault_called
from provision.lab.layout import Lab, folder_of
from provision.lab.record import load
from provision.lab.requirements import require

app = typer.Typer(help="Break nodes of a lab on purpose, and mend them.", no_args_is_help=True)
_out = Console()


@app.command()
def inject(
    kind: Annotated[str, typer.Argument(help="A fault of the catalogue: see `list`.")],
    node: Annotated[str, typer.Argument(help="The node to break, for example te2.")],
    peer: Annotated[str | None, typer.Argument(help="The second node of a fault between two.")] = None,
    value: Annotated[
        str | None, typer.Option("--value", help="How much: a rate, percent, ports; see `list`.")
    ] = None,
    name: Name = "lab",
) -> None:
    """Break a node; `clear` mends it."""
    require()
    found, fault = existing(name), fault_called(kind)
    wait = "waiting for ranks to inject it at" if fault.needs_ranks else f"injecting {kind}"
    with lab.locked(found.folder), Console(stderr=True).status(wait):
        chosen = lab.nodes_called(found, [node, *([peer] if peer else [])])
        active = injection.inject(
            found, chosen[0], fault, peer=chosen[1] if len(chosen) > 1 else None, value=value
        )
    _out.print(f"{_words(node, active)}: {fault.what}", highlight=False, soft_wrap=True)


@app.command()
def clear(
    nodes: Annotated[list[str] | None, typer.Argument(help="Nodes; all without any.")] = None,
    name: Name = "lab",
) -> None:
    """Take every fault of nodes back; without a fault there is nothing to do."""
    require()
    found = existing(name)
    with lab.locked(found.folder):
        for node in lab.nodes_called(found, nodes or []):
            for active in injection.clear(found, node):
                _out.print(f"cleared {_words(node.name, active)}", highlight=False)


def _words(node: str, active: record.Active) -> str:
    return " ".join(filter(None, (active.fault, node, active.peer, active.value)))


@app.command("list")
def list_faults(
    name: Name = "lab",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the catalogue, and what is active in the lab."""
    found = load(folder_of(name))
    active = _active(found) if found else []
    if as_json:
        typer.echo(json.dumps(_as_data(active), indent=2))
        return
    table = Table("fault", "what it does", "a diagnosis must name", title="catalogue")
    for fault in CATALOGUE.values():
        table.add_row(injection.usage(fault), fault.what, fault.named.part.value)
    _out.print(table)
    for entry in active:
        _out.print(f"active: {_words(entry[0], entry[1])}", highlight=False)
    if not active:
        _out.print(f"no fault is active in lab {name}", highlight=False)


def _active(found: Lab) -> list[tuple[str, record.Active]]:
    return [(node.name, active) for node in found.nodes for active in record.load(node)]


def _as_data(active: list[tuple[str, record.Active]]) -> dict[str, Any]:
    return {
        "catalogue": [
            {
                "name": fault.name,
                "what": fault.what,
                "names": fault.named.part.value,
                "value": fault.default,
                "two_nodes": fault.two_nodes,
                "needs_site": fault.needs_site,
                "needs_ranks": fault.needs_ranks,
            }
            for fault in CATALOGUE.values()
        ],
        "active": [
            {"node": node, "fault": one.fault, "peer": one.peer, "value": one.value} for node, one in active
        ],
    }
