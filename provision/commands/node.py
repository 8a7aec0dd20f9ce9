"""`provision node`: a node comes, goes or is replaced, and the others are hardly touched."""

from __future__ import annotations

import difflib
import json
import os
import shlex
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from provision.edges.playbook import words_of
from provision.edges.terminal import Console
from provision.inventory.formats import edits_of
from provision.inventory.members import Action
from provision.nodes.life import Change, Changed, Reporter, apply, preview
from provision.nodes.steps import Step

app = typer.Typer(help="A node comes, goes or is replaced.", no_args_is_help=True)
_out = Console(highlight=False)
_progress = Console(stderr=True)

Name = Annotated[str, typer.Argument(help="The node, for example te5.")]
Inventory = Annotated[Path, typer.Option("--inventory", "-i", help="The site, for example inventory/mine.")]
Address = Annotated[str, typer.Option("--address", help="Where it is reached.")]
ClusterAddress = Annotated[
    str | None, typer.Option("--cluster-address", help="Its address among the nodes, where that differs.")
]
KeepClusterAddress = Annotated[
    bool, typer.Option("--keep-cluster-address", help="Change ansible_host alone, as with a mesh.")
]
Slots = Annotated[int | None, typer.Option("--slots", min=1, help="Its GPUs, where the site says otherwise.")]
Group = Annotated[
    str | None, typer.Option("--group", help="Its group, where several groups of the cluster list nodes.")
]
Check = Annotated[bool, typer.Option("--check", help="Print the edit and the playbooks, and do nothing.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@app.command()
def add(
    name: Name,
    inventory: Inventory,
    address: Address,
    cluster_address: ClusterAddress = None,
    slots: Slots = None,
    group: Group = None,
    check: Check = False,
    as_json: AsJson = False,
) -> None:
    """Add a machine: everything on it, one call to each other node, the smoke test of its pairs.

    Its host key must be in your known_hosts, as every node's. After a failure, give the same command again.
    """

    def edit(text: str) -> str:
        return edits_of(text).add(
            text, name, address=address, slots=slots, cluster_address=cluster_address, group=group
        )

    _change(Action.add, name, inventory, edit, group=group, check=check, as_json=as_json)


@app.command()
def replace(
    name: Name,
    inventory: Inventory,
    address: Address,
    keep_cluster_address: KeepClusterAddress = False,
    check: Check = False,
    as_json: AsJson = False,
) -> None:
    """Put another machine in a node's place: from then on its host keys are the new machine's.

    The old machine keeps a copy of the cluster's key. Where that matters: node remove, then node add.
    """

    def edit(text: str) -> str:
        return edits_of(text).replace(text, name, address=address, keeps_cluster_address=keep_cluster_address)

    _change(Action.replace, name, inventory, edit, check=check, as_json=as_json)


@app.command()
def remove(name: Name, inventory: Inventory, check: Check = False, as_json: AsJson = False) -> None:
    """Take a node out: the others forget it, and get a new cluster key, since it holds the old one.

    Certificates of tests in which it took part no longer count, so the smoke test of all others follows. Keys
    on the others that neither the inventory nor this controller knows are named, and stay.
    """

    def edit(text: str) -> str:
        return edits_of(text).remove(text, name)

    _change(Action.remove, name, inventory, edit, check=check, as_json=as_json)


@app.command()
def drain(name: Name, inventory: Inventory, check: Check = False, as_json: AsJson = False) -> None:
    """Leave a node out of new jobs: it stays in the inventory, and goes from the hostfile of all nodes."""

    def edit(text: str) -> str:
        return edits_of(text).drain(text, name)

    _change(Action.drain, name, inventory, edit, check=check, as_json=as_json)


@app.command()
def undrain(name: Name, inventory: Inventory, check: Check = False, as_json: AsJson = False) -> None:
    """Take a node back into new jobs, which start on it where its certificate still holds."""

    def edit(text: str) -> str:
        return edits_of(text).undrain(text, name)

    _change(Action.undrain, name, inventory, edit, check=check, as_json=as_json)


def _change(
    action: Action,
    name: str,
    inventory: Path,
    edit: Callable[[str], str],
    *,
    group: str | None = None,
    check: bool,
    as_json: bool,
) -> None:
    change = Change(action=action, node=name, inventory=inventory, edit=edit, group=group)
    if check:
        _show_preview(change, as_json=as_json)
        return
    with _progress.status("reading the inventory") as status:

        def on_line(line: str) -> None:
            if line.startswith("TASK ["):
                status.update(line.rstrip(" *").replace("[", r"\["))

        done = apply(change, os.environ, Reporter(on_step=_say_step, on_line=on_line))
    if as_json:
        typer.echo(json.dumps(asdict(done), indent=2))
    else:
        _show(done)


def _show_preview(change: Change, *, as_json: bool) -> None:
    old, new, planned = preview(change, os.environ)
    lines = [line for line in difflib.ndiff(old.splitlines(), new.splitlines()) if line[0] in "+-"]
    commands = [words_of(change.inventory, step.words) for step in planned]
    if as_json:
        typer.echo(json.dumps({"file": str(change.hosts), "edit": lines, "commands": commands}, indent=2))
        return
    _say(f"{change.hosts}{'' if lines else ': no edit'}")
    for line in lines:
        _say(f"  {line}")
    if change.action is Action.remove:
        _say("the cluster's key is given up, and a new one made  # the node holds a copy of it")
    for words, step in zip(commands, planned, strict=True):
        _say(f"{shlex.join(words)}  # {step.reason}")


def _say(line: str) -> None:
    _out.print(line, markup=False, soft_wrap=True)


def _say_step(step: Step) -> None:
    _progress.print(f"{shlex.join(step.words)}  # {step.reason}", markup=False, soft_wrap=True)


def _show(done: Changed) -> None:
    if done.pending:
        _say(
            f"pending: {', '.join(done.pending)} did not answer; the next node command or site.yml tells them"
        )
    for one in done.audit:
        _say(str(one))
    if done.action == "remove":
        _say(f"audit of keys: {len(done.audit)} findings; the rest: provision audit")
    tested = "the smoke test passed" if done.tested else "no smoke test was needed"
    _say(f"{done.action} {done.node}: done in {done.seconds} s, {tested}")
