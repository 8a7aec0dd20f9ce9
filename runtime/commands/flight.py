"""`python -m runtime flight`: who is behind, by what the ranks of a job that hung remember."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import typer

from runtime.flight.compare import compare
from runtime.flight.dump import find_dumps, read_dump
from runtime.terminal import printable


def flight(
    paths: list[Path] = typer.Argument(help="Dumps, or folders with them: the logs of a job."),
    ranks: int = typer.Option(0, min=0, help="How many ranks the job had. Default: by the last dump."),
    as_json: bool = typer.Option(False, "--json", help="Print the findings as JSON."),
) -> None:
    """Compare the dumps of PyTorch's flight recorder that the ranks of a job left, over NCCL or Gloo.

    Exit status: 1 with findings, 2 for bad input, 4 where nobody stands out.
    """
    dumps = [read_dump(path) for path in find_dumps(paths)]
    found = compare(dumps, world_size=ranks)
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in found], indent=2))
    for finding in () if as_json else found:
        typer.echo(printable(finding.found))
    raise typer.Exit(1 if any(finding.conclusive for finding in found) else 4)
