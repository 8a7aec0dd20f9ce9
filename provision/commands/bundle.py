"""`provision bundle`: all that a site installs, in one folder, for where there is no internet."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

from provision.bundle.folder import Bundle, Difference, differences, read
from provision.commands.bundle_create import create
from provision.commands.bundle_serve import serve
from provision.commands.folders import user_cache
from provision.edges.terminal import Console
from provision.environments import runtime_wheel

app = typer.Typer(
    help="All that a site installs, in one folder, for where there is no internet.", no_args_is_help=True
)

_CHECKOUT = Path(__file__).parents[2]
_SHOWN = 20
app.command()(create)
app.command()(serve)
_out = Console(highlight=False)
_progress = Console(stderr=True, highlight=False)


@app.callback()
def _noun() -> None:
    pass


@app.command("wheel")
def build_wheel(
    root: Path = typer.Option(_CHECKOUT, help="Root of the checkout to build."),
    as_json: bool = typer.Option(False, "--json", help="Print path, sha256, content and built, as JSON."),
) -> None:
    """Build the wheel that nodes get, once for each state of its sources, and print where it lies."""
    made = runtime_wheel.build(root, cache=user_cache() / "wheel", environment=os.environ)
    if as_json:
        typer.echo(json.dumps({**asdict(made), "path": str(made.path)}))
    else:
        typer.echo(made.path)


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(help="The bundle's folder.", metavar="FOLDER")],
    digest: Annotated[
        str, typer.Option("--digest", help="The digest that `bundle create` told: it has to be that bundle.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Read every file of a bundle, and name what is missing, surplus or another one than its manifest says.

    Nothing of it is run, and no link in it is followed. Exit status: 0 it is whole, 1 it is not, 2 bad input.
    """
    bundle = read(folder.resolve())
    found = _verified(bundle)
    if digest and digest != bundle.digest:
        found.insert(0, Difference(path="bundle.json", what=f"the bundle {bundle.digest}, not {digest}"))
    if as_json:
        told = {
            "folder": str(folder),
            "digest": bundle.digest,
            "made_for": dict(bundle.contents.made_for),
            "files": len(bundle.contents.files),
            "bytes": bundle.contents.bytes,
            "problems": [asdict(one) for one in found],
        }
        typer.echo(json.dumps(told, indent=2))
    else:
        for one in found[:_SHOWN]:
            _say(f"{one.path}: {one.what}")
        if len(found) > _SHOWN:
            _say(f"and {len(found) - _SHOWN} more; --json names all")
        whole = f"{len(bundle.contents.files)} files, {bundle.contents.bytes / (1 << 30):.2f} GiB"
        _say(f"{whole}: {f'{len(found)} not ' if found else ''}as the manifest says")
        _say(f"digest {bundle.digest}")
    raise typer.Exit(1 if found else 0)


def _verified(bundle: Bundle) -> list[Difference]:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
    with Progress(*columns, console=_progress, transient=True) as progress:
        task = progress.add_task("verifying", total=bundle.contents.bytes)
        return differences(bundle, on_bytes=lambda count: progress.advance(task, count))


def _say(line: str) -> None:
    _out.print(line, markup=False, soft_wrap=True)
