"""`python -m runtime config`: what a ds_config.json means, before anything is started."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import typer

from runtime.train.config import ConfigError, Resolved, Situation, read_config
from runtime.train.config.explain import in_json, json_schema, rows

app = typer.Typer(help="Explain and check a ds_config.json.", no_args_is_help=True)


@app.command()
def explain(
    path: Path = typer.Argument(help="A ds_config.json."),
    world_size: int = typer.Option(1, min=1, help="Ranks of the job."),
    hidden_size: int = typer.Option(None, min=1, help="Of the model, for keys that are auto."),
    total_steps: int = typer.Option(None, min=1, help="Optimizer steps of the job, for keys that are auto."),
    every: bool = typer.Option(False, "--all", help="Defaults as well."),
    as_json: bool = typer.Option(False, "--json", help="As a list of JSON objects."),
    check: bool = typer.Option(
        False, "--check", help="Print nothing; exit 0 when the file can be used, else 2."
    ),
) -> None:
    """Print each key in force, its value, where it came from, and whether it changes anything here."""
    situation = Situation(world_size=world_size, hidden_size=hidden_size, total_num_steps=total_steps)
    try:
        resolved = read_config(path, situation)
    except ConfigError as e:
        if check:
            raise typer.Exit(e.exit_code) from e
        raise
    if not check:
        _show(resolved, every=every, as_json=as_json)


@app.command()
def schema() -> None:
    """Print a JSON Schema of ds_config.json, for editors."""
    typer.echo(json.dumps(json_schema(), indent=2))


def _show(resolved: Resolved, *, every: bool, as_json: bool) -> None:
    found = rows(resolved, every=every)
    if as_json:
        typer.echo(json.dumps([asdict(row) for row in found], indent=2))
        return
    keys, values = max(len(row.key) for row in found), max(len(in_json(row.value)) for row in found)
    for row in found:
        note = f"; no effect here: {row.note}" if row.note else ""
        typer.echo(f"{row.key:{keys}}  {in_json(row.value):{values}}  {row.source}{note}")
