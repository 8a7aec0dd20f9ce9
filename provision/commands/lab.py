"""`provision lab`: a cluster of real, small machines on this one."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from provision.bundle.apt_sources import sources_for
from provision.commands import fault, mirror, snapshot
from provision.commands.folders import user_cache
from provision.commands.which_lab import Name, existing
from provision.edges.terminal import Console
from provision.errors import BadInput
from provision.images.files import read_manifest, unpack
from provision.lab import argv, lab
from provision.lab import snapshot as snapshots
from provision.lab.freeze import freeze as freeze_lab
from provision.lab.image.build import image_of
from provision.lab.layout import DEFAULT_SUBNET, Lab, folder_of, mirror_name
from provision.lab.observe import State
from provision.lab.record import load
from provision.lab.requirements import install as install_packages
from provision.lab.requirements import missing_packages, require
from provision.lab.shape import Direction

app = typer.Typer(help="A cluster of real, small machines on this one.", no_args_is_help=True)
app.command("mirror")(mirror.make)
app.add_typer(fault.app, name="fault")
app.add_typer(snapshot.app, name="snapshot")
_out = Console()
_progress = Console(stderr=True)

Node = Annotated[str, typer.Argument(help="A node, for example te2.")]
Check = Annotated[bool, typer.Option("--check", help="Print the steps and do nothing.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class Power(StrEnum):
    on = "on"
    off = "off"


def _mirror(of: Lab) -> Path:
    return user_cache() / mirror_name(of.release) / "current"


@contextmanager
def _reporting() -> Iterator[lab.Report]:
    """Shows the step at hand beside a spinner, or one line a step where there is no terminal."""
    if not _progress.is_terminal:
        yield lambda text: _progress.print(text, highlight=False, markup=False)
        return
    with _progress.status("") as spinner:
        yield lambda text: spinner.update(text.replace("[", r"\["))


def _bytes(text: str) -> int:
    found = re.fullmatch(r"([1-9][0-9]*)([KMGT]?)(i?B?)", text)
    if not found:
        raise BadInput(f"make a disk of {text!r}", found="it is no size", fix="Give one such as 12G or 500M.")
    return int(found[1]) << 10 * " KMGT".index(found[2] or " ")


@app.command()
def requirements(
    install: Annotated[
        bool, typer.Option("--install", help="Install the missing packages with apt-get.")
    ] = False,
) -> None:
    """Say what this machine lacks for a lab; status 3 when it lacks anything."""
    if install and missing_packages():
        with _reporting() as report:
            install_packages(report)
    require()
    _out.print("this machine has all that a lab needs")


@app.command()
def up(
    name: Name = "lab",
    nodes: Annotated[
        int | None,
        typer.Option("--nodes", help="How many machines.", show_default="4, or as many as there are"),
    ] = None,
    subnet: Annotated[
        str | None,
        typer.Option("--subnet", help="Their network; .1 is this machine.", show_default=DEFAULT_SUBNET),
    ] = None,
    disk_size: Annotated[
        str | None, typer.Option("--disk-size", help="Size of each blank data disk.", show_default="12G")
    ] = None,
    image: Annotated[
        Path | None, typer.Option("--image", help="A folder that `image bake` wrote: nodes start from it.")
    ] = None,
    from_: Annotated[
        str | None,
        typer.Option("--from", help="A snapshot that `freeze` made: nodes start as it holds them."),
    ] = None,
    release: Annotated[
        str | None,
        typer.Option(
            "--release", help="Debian's or Ubuntu's code name, as trixie.", show_default="this machine's"
        ),
    ] = None,
    check: Check = False,
) -> None:
    """Bring up a lab, or whatever is missing of one, and wait until every node answers."""
    require()
    folder = folder_of(name)
    asked = lab.Asked(subnet=subnet, count=nodes, disk_bytes=_bytes(disk_size) if disk_size else None)
    if [from_, image, release].count(None) < 2:
        raise BadInput(
            "start nodes from a snapshot, an image and blank of a release",
            found="they have one start",
            fix="Say one of --from, --image and --release.",
        )
    if release:
        sources_for(release)
    with lab.locked(folder), snapshots.held(from_) if from_ else nullcontext():
        if from_:
            found = snapshots.load(from_)
            wanted = lab.restored_lab(name, asked, existing=load(folder), frozen=found)
        else:
            base, data = _start_from(image, release or "")
            wanted = lab.wanted_lab(
                name, asked, existing=load(folder), base=base, data_image=data, release=release or ""
            )
        if check:
            _print_plan([(step.action, step.target, step.reason) for step in lab.plan_for_up(wanted)])
            return
        with _reporting() as report:
            lab.up(wanted, mirror=_mirror(wanted), report=report)
    _print_status(wanted)
    _out.print(f"inventory: {wanted.inventory}", highlight=False, soft_wrap=True)


def _start_from(image: Path | None, release: str) -> tuple[Path, Path | None]:
    """What a new lab's nodes start from: the tree of their system disk, and what is on their data disks."""
    if image is None:
        return image_of(user_cache(), release), None
    unpacked = unpack(image, read_manifest(image, key=None), user_cache())
    return unpacked.root, unpacked.data


@app.command()
def freeze(
    snapshot_name: Annotated[str, typer.Argument(metavar="SNAPSHOT", help="What to call it.")],
    name: Name = "lab",
) -> None:
    """Keep a lab as it is now, for `up --from`; its nodes are shut down, copied and switched on again."""
    require()
    found = existing(name)
    with lab.locked(found.folder), snapshots.held(snapshot_name), _reporting() as report:
        made = freeze_lab(found, snapshot_name, mirror=_mirror(found), report=report)
    _out.print(f"snapshot {made.name}: {snapshots.in_gib(made.bytes_on_disk)}", highlight=False)
    again = f"provision lab down --name {name}; provision lab up --from {made.name} --name {name}"
    _out.print(f"back to it at any time: {again}", highlight=False, soft_wrap=True)


@app.command()
def down(name: Name = "lab", check: Check = False) -> None:
    """Remove a lab: no mount, loop device, link, process or file of it stays."""
    require()
    folder = folder_of(name)
    with lab.locked(folder):
        if check:
            _print_plan([(step.action, step.target, step.reason) for step in lab.plan_for_down(folder)])
            return
        with _reporting() as report:
            lab.down(folder, report=report)
    _out.print(f"lab {name} is gone")


@app.command()
def status(name: Name = "lab", as_json: AsJson = False) -> None:
    """Show every node: off, booting or running, its address, its process, the limits of its cable."""
    require()
    found = existing(name)
    if as_json:
        typer.echo(json.dumps(_status_as_data(found), indent=2))
    else:
        _print_status(found)


@app.command(context_settings={"ignore_unknown_options": True})
def shell(
    node: Node,
    command: Annotated[list[str] | None, typer.Argument(help="What to run; a login without one.")] = None,
    name: Name = "lab",
) -> None:
    """Log in to a node as root, or run one command there (after -- when it has options of its own)."""
    found = existing(name)
    words = argv.ssh(found, lab.nodes_called(found, [node])[0], command or [])
    os.execvp(words[0], words)


@app.command()
def shape(
    node: Node,
    rate: Annotated[str | None, typer.Option("--rate", help="A rate in tc's words: 200mbit, 1gbit.")] = None,
    direction: Annotated[Direction, typer.Option("--direction", help="Seen from the node.")] = Direction.both,
    clear: Annotated[bool, typer.Option("--clear", help="Take the limit away.")] = False,
    name: Name = "lab",
) -> None:
    """Limit a node's cable, or clear its limits."""
    if clear == (rate is not None):
        raise BadInput(
            f"shape {node}", found="it takes one of --rate and --clear", fix="Say --rate 200mbit or --clear."
        )
    require()
    found = existing(name)
    with lab.locked(found.folder):
        lab.shape(found, lab.nodes_called(found, [node])[0], rate=rate, direction=direction)
    _print_status(found)


@app.command()
def power(
    what: Annotated[Power, typer.Argument(help="on, or off: as if its plug were pulled.")],
    nodes: Annotated[list[str], typer.Argument(help="Nodes, for example te2.")],
    name: Name = "lab",
) -> None:
    """Pull the plug of nodes, or switch them on and wait until they answer."""
    require()
    found = existing(name)
    with lab.locked(found.folder), _reporting() as report:
        chosen = lab.nodes_called(found, nodes)
        if what is Power.off:
            report(f"power off {' '.join(nodes)}")
            lab.power_off(found, chosen)
        else:
            lab.power_on(found, chosen, mirror=_mirror(found), report=report)
    _print_status(found)


@app.command()
def reset(
    nodes: Annotated[list[str] | None, typer.Argument(help="Nodes; all without any.")] = None,
    name: Name = "lab",
) -> None:
    """Give nodes back their first state: that of the lab's snapshot, or blank with new host keys."""
    require()
    found = existing(name)
    with lab.locked(found.folder), _reporting() as report:
        lab.reset(found, lab.nodes_called(found, nodes or []), mirror=_mirror(found), report=report)
    _print_status(found)


def _status_as_data(found: Lab) -> dict[str, Any]:
    return {
        "name": found.name,
        "subnet": str(found.subnet),
        "inventory": str(found.inventory),
        "nodes": [
            {
                "name": node.name,
                "state": node.state.value,
                "address": node.address,
                "pid": node.pid,
                "ingress": node.shape.ingress,
                "egress": node.shape.egress,
            }
            for node in lab.status(found)
        ],
    }


def _print_status(found: Lab) -> None:
    colours = {State.running: "green", State.booting: "yellow", State.off: "red"}
    table = Table("node", "state", "address", "process", "ingress", "egress", title=f"lab {found.name}")
    for node in lab.status(found):
        state = f"[{colours[node.state]}]{node.state}[/]"
        limits = (node.shape.ingress or "-", node.shape.egress or "-")
        table.add_row(node.name, state, node.address, str(node.pid or "-"), *limits)
    _out.print(table)


def _print_plan(rows: list[tuple[str, str, str]]) -> None:
    table = Table("step", "what", "because")
    for row in rows:
        table.add_row(*row)
    _out.print(table)
