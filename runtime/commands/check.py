"""`python -m runtime check`: which of a script's names and keys of DeepSpeed are not here, before it runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from runtime.as_deepspeed.reading import Reading, read_script
from runtime.errors import BadInput
from runtime.terminal import printable
from runtime.train.config import ConfigError, Situation, read_config
from runtime.train.config.load import GLOBAL, MICRO


def check(
    script: Path = typer.Argument(help="A script of Python's; it is read and not run."),
    config: list[Path] = typer.Option([], help="A ds_config.json that it is started with (repeat)."),
    world_size: int = typer.Option(1, min=1, help="Ranks of the job."),
    as_json: bool = typer.Option(False, "--json", help="As a list of JSON objects."),
) -> None:
    """Say which names and keys of DeepSpeed that a script uses are not here; exit 1 if there are any."""
    reading = _read(script)
    lines = [
        {"where": f"{script}:{one.line}", "what": one.name, "why": one.why, "instead": one.instead}
        for one in reading.findings
    ]
    for line, values in reading.configurations:
        lines += _problems(f"{script}:{line}", values, world_size)
    for path in config:
        lines += _problems(str(path), path, world_size)
    if as_json:
        typer.echo(json.dumps(lines, indent=2))
    else:
        _show(reading, lines)
    if lines:
        raise typer.Exit(1)


def _read(script: Path) -> Reading:
    from runtime.as_deepspeed.engine import DeepSpeedEngine

    try:
        text = script.read_text(encoding="utf-8")
        return read_script(text, engine_has=DeepSpeedEngine.names())
    except (OSError, UnicodeDecodeError) as e:
        raise BadInput(f"read {script}", found=str(e), fix="Name a script of Python's.") from e
    except (SyntaxError, ValueError, RecursionError) as e:
        raise BadInput(f"read {script}", found=f"no Python of this version: {e}", fix="Correct it.") from e


def _problems(where: str, source: Path | Mapping[str, Any], world_size: int) -> list[dict[str, str]]:
    if isinstance(source, Mapping) and not {GLOBAL, MICRO} & _numbers(source):
        source = {**{k: v for k, v in source.items() if k not in (GLOBAL, MICRO)}, MICRO: 1}  # a variable's
    try:
        read_config(source, Situation(world_size=world_size))
    except ConfigError as e:
        return [{"where": where, "what": p.where, "why": p.found, "instead": p.fix} for p in e.problems]
    return []


def _numbers(source: Mapping[str, Any]) -> set[str]:
    return {name for name, value in source.items() if isinstance(value, int | float)}


def _show(reading: Reading, lines: list[dict[str, str]]) -> None:
    for one in lines:
        typer.echo(printable(f"{one['where']}: {one['what']}: {one['why']}. {one['instead']}"))
    names = f"{len(reading.uses)} names of DeepSpeed's, {len(reading.configurations)} configurations in it"
    typer.echo(f"{names}; not here: {len(lines) or 'nothing'}")
