"""`provision bundle`: what the controller makes for the nodes."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

import typer

from provision.commands.folders import user_cache
from provision.environments import runtime_wheel

app = typer.Typer(help="What the controller makes for the nodes.", no_args_is_help=True)

_CHECKOUT = Path(__file__).parents[2]


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
