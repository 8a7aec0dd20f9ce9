"""`provision image`: the disks of a node as files, and the proof that a machine made from them is a node."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from provision.commands.folders import user_cache
from provision.commands.rehearse import ON_DISKS, rehearse_image
from provision.edges import cluster_lock
from provision.edges.playbook import play
from provision.edges.terminal import Console
from provision.errors import BadInput, CommandFailed
from provision.images import baking
from provision.images.checks import Check
from provision.images.files import MANIFEST
from provision.images.manifest import PROVEN, summary
from provision.inventory.site import read_site, read_whole
from provision.inventory.trust import controller_key
from provision.lab.requirements import require
from provision.model import Machine

app = typer.Typer(help="The disks of a node as an image, and its proof.", no_args_is_help=True)
_out = Console(highlight=False)
_progress = Console(stderr=True, highlight=False)

Inventory = Annotated[Path, typer.Option("--inventory", "-i", help="The site, for example inventory/lab.")]
Node = Annotated[str, typer.Argument(help="A node that site.yml has converged, for example te1.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def bake(
    node: Node,
    inventory: Inventory,
    output: Annotated[Path, typer.Option("--output", help="Folder for the layers and the manifest.")],
    controller: Annotated[
        str,
        typer.Option("--controller", help="ADDRESS:PORT that its machines ask, where user data names none."),
    ] = "",
    user_data: Annotated[
        Path | None,
        typer.Option("--user-data", help="A token for all its machines: shared.json of `restore --shared`."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Say what would be taken off its disks, and do nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write a node's system and data disk as compressed files; the node is as before afterwards.

    Its logs and temporary files go. It answers meanwhile, but nobody may use its data disk.
    """
    site = read_whole(inventory, ("cluster_data_path",), environment=os.environ)
    machine, secrets = _machine(node, inventory, site.machines), site.secrets
    if check:
        data_path = str(site.variables[node].get("cluster_data_path", "/data"))
        _preview(baking.preview(machine, data_path), as_json)
        return
    if (output / MANIFEST).exists():
        raise BadInput(f"write {output / MANIFEST}", found="there is one", fix="Name another --output.")
    key = controller_key(secrets, "sign an image")
    words = (
        "--limit",
        node,
        "--extra-vars",
        json.dumps(
            {
                "image_cleanup_controller": controller,
                "image_cleanup_user_data": str(user_data.resolve()) if user_data else "",
            }
        ),
    )
    since = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    with cluster_lock.hold(secrets, f"provision image bake {node}"):
        try:
            with _lines("image.yml") as on_line:
                play(inventory, ("playbooks/image.yml", *words), on_line=on_line, environment=os.environ)
            with _bars() as on_bytes:
                image = baking.take(machine, output, key=key, since=since, on_bytes=on_bytes)
        finally:
            baking.release(machine)
    _say(image, as_json)


@app.command()
def release(node: Node, inventory: Inventory) -> None:
    """Give a node back what image.yml took off its disks, where it was not switched off since."""
    baking.release(_machine(node, inventory, read_site(inventory, environment=os.environ)))
    _out.print(f"{node} is what it was before image.yml")


@app.command()
def rehearse(
    folder: Annotated[Path, typer.Argument(help="A folder that `image bake` wrote.")],
    inventory: Annotated[
        Path, typer.Option("--inventory", "-i", help="The site whose key signed it, and signs the verdict.")
    ],
    name: Annotated[str, typer.Option("--name", help="What the lab is called meanwhile.")] = "rehears",
    subnet: Annotated[str, typer.Option("--subnet", help="Its network.")] = "10.77.250.0/24",
    as_json: AsJson = False,
) -> None:
    """Boot two machines made from an image, and write the verdict into its manifest.

    Exit status: 0 proven, 1 refused, 2 bad input.
    """
    require()
    site = read_whole(inventory, ON_DISKS, environment=os.environ)
    key = controller_key(site.secrets, "sign the verdict on an image")
    with _lines("rehearse") as on_line:
        image, checks = rehearse_image(
            folder,
            key=key,
            variables=site.variables,
            name=name,
            subnet=subnet,
            cache=user_cache(),
            environment=os.environ,
            report=on_line,
        )
    if not as_json:
        _out.print(_table(checks))
    _say(image, as_json)
    if image["rehearsal"]["verdict"] != PROVEN:
        failed = [f"{check.name}: {check.found}" for check in checks if not check.passed]
        raise CommandFailed(
            f"call {image['id']} ready", found="\n       ".join(failed), fix="Mend the node, then bake again."
        )


def _machine(node: str, inventory: Path, listed: Sequence[Machine]) -> Machine:
    machines = {machine.name: machine for machine in listed}
    if node not in machines:
        raise BadInput(
            f"find {node} in {inventory}",
            found=f"its nodes are {', '.join(machines)}",
            fix="Name one of them.",
        )
    return machines[node]


def _preview(found: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    table = Table("path", "what", "taken away by")
    for one in found:
        by = "image.yml" if one["mended"] else "[red]you[/]"
        table.add_row(escape(one["path"]), escape(f"{one['rule']}: {one['found']}"), by)
    _out.print(table)


def _say(image: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(image, indent=2))
        return
    for name, layer in image["layers"].items():
        sizes = f"{layer['bytes'] / 1e6:.0f} MB, of {layer['unpacked_bytes'] / 1e6:.0f} MB"
        _out.print(f"{name}  {sizes}  sha256 {layer['sha256']}", markup=False, soft_wrap=True)
    _out.print(summary(image), markup=False, soft_wrap=True)


def _table(checks: list[Check]) -> Table:
    table = Table("check", "verdict", "found")
    for check in checks:
        table.add_row(
            check.name,
            "[green]passed[/]" if check.passed else "[red]failed[/]",
            escape(check.found),
        )
    return table


@contextmanager
def _lines(what: str) -> Iterator[Callable[[str], None]]:
    """Shows the line at hand beside a spinner, or every line where there is no terminal."""
    if not _progress.is_terminal:
        yield lambda line: _progress.print(line, markup=False, soft_wrap=True)
        return
    with _progress.status(what) as spinner:
        yield lambda line: spinner.update(f"{what}: {line[:90]}".replace("[", r"\["))


@contextmanager
def _bars() -> Iterator[Callable[[str, int], None]]:
    """One line for each layer, growing with what has come of it."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=_progress) as progress:
        tasks: dict[str, Any] = {}

        def on_bytes(name: str, count: int) -> None:
            if name not in tasks:
                tasks[name] = progress.add_task(name, total=None)
            progress.advance(tasks[name], count)

        yield on_bytes
