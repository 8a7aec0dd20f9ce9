"""`provision env lint`: what is wrong in a lock of an environment, ours or anybody's."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from provision.edges.terminal import Console
from provision.environments.lint.entries import Finding
from provision.environments.lint.judgement import judge
from provision.environments.lint.nodes import VARIABLES, floors_of
from provision.environments.lint.reading import read_lock
from provision.errors import BadInput
from provision.inventory.site import read_whole

_out = Console()
_problems = Console(stderr=True)
_SHOWN = 5


def lint(
    locks: Annotated[list[Path], typer.Argument(metavar="LOCK...", help="Lock files.")],
    inventory: Annotated[
        Path | None,
        typer.Option("--inventory", "-i", help="A site whose drivers and processors the locks shall fit."),
    ] = None,
    glibc: Annotated[str, typer.Option(help="The nodes' oldest glibc, as 2.28.")] = "",
    driver: Annotated[str, typer.Option(help="The nodes' oldest NVIDIA driver, as 535.")] = "",
    compute_capability: Annotated[str, typer.Option(help="The nodes' oldest cards, as 7.0.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Name what is wrong in locks: conda-lock.yml, explicit, requirements, pylock.toml, uv.lock, pixi.lock.

    Nothing is fetched or changed. Exit status: 0 nothing is wrong, 1 something is, 2 a file is no lock.
    """
    variables = read_whole(inventory, VARIABLES, environment=os.environ).variables if inventory else {}
    floors = floors_of(variables, glibc=glibc, driver=driver, compute_capability=compute_capability)
    found: list[Finding] = []
    unread: list[BadInput] = []
    for path in locks:
        try:
            found += judge(read_lock(path), floors)
        except BadInput as e:
            unread.append(e)
    if as_json:
        problems = [{"asked": one.asked, "found": one.found, "fix": one.fix} for one in unread]
        typer.echo(json.dumps({"findings": [asdict(one) for one in found], "unread": problems}, indent=2))
    else:
        _show(found, len(locks) - len(unread))
        for one in unread:
            _problems.print(str(one), highlight=False, markup=False, soft_wrap=True)
    raise typer.Exit(2 if unread else 1 if found else 0)


def _show(found: Sequence[Finding], read: int) -> None:
    """Each rule once with its fix; of what it found the first ones, `--json` has all."""
    by_rule: dict[str, list[Finding]] = defaultdict(list)
    for one in found:
        by_rule[f"{one.file} {one.rule}"].append(one)
    for ones in by_rule.values():
        for one in ones[:_SHOWN]:
            _say(_line(one))
        if len(ones) > _SHOWN:
            _say(f"  and {len(ones) - _SHOWN} more")
        _say(f"  {ones[0].fix}")
    errors = sum(one.severity == "error" for one in found)
    _say(f"{read} locks, {errors} errors, {len(found) - errors} warnings")


def _line(one: Finding) -> str:
    place = f"{one.file}:{one.line}" if one.line else one.file
    package = " ".join(part for part in (one.package, one.platform and f"({one.platform})") if part)
    return f"{place}: {one.severity} {one.rule}: {f'{package}: ' if package else ''}{one.problem}"


def _say(line: str) -> None:
    _out.print(line, highlight=False, markup=False, soft_wrap=True)
