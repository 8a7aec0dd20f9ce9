"""`provision doctor`: from an error text, a job's logs or a cluster to probable causes and what to do."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from provision.diagnose.causes import Diagnosis, Text, diagnose
from provision.diagnose.facts import judge
from provision.diagnose.questions import ask
from provision.diagnose.rows import ROWS
from provision.edges.terminal import Console
from provision.errors import BadInput
from provision.inventory.site import read_site

_LOGS = ("rank*.log", "agent*.log")
_progress = Console(stderr=True)


def doctor(
    logs: Annotated[
        Path | None, typer.Option("--logs", help="Folder of a job's logs: rank*.log, agent*.log.")
    ] = None,
    inventory: Annotated[
        Path | None, typer.Option("--inventory", "-i", help="A site: ask its nodes over ssh.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Name probable causes: of an error text on standard input, of a job's logs, or of a cluster.

    Exit status: 0 nothing found, 1 found something, 2 bad input.
    """
    if logs and inventory:
        raise BadInput("examine two things at once", found="--logs and -i", fix="Give one of them.")
    if inventory:
        found = examine(inventory)
    else:
        found = diagnose(_texts_in(logs) if logs else [_standard_input()], ROWS)
    show(found, as_json=as_json)
    raise typer.Exit(1 if found else 0)


def examine(inventory: Path) -> list[Diagnosis]:
    """Asks every node of a site, and judges what they say."""
    machines = read_site(inventory, environment=os.environ)
    answered = 0
    with _progress.status(f"asking {len(machines)} nodes") as status:

        def on_answer(name: str) -> None:
            nonlocal answered
            answered += 1
            status.update(f"{answered} of {len(machines)} nodes: {name}")

        asked = ask(machines, on_answer)
    return judge(asked.nodes, unreachable=asked.unreachable)


def _texts_in(folder: Path) -> list[Text]:
    paths = sorted({path for pattern in _LOGS for path in folder.rglob(pattern)})
    if not paths:
        raise BadInput(
            f"read the logs in {folder}",
            found=f"no {' and no '.join(_LOGS)} there" if folder.is_dir() else "there is no such folder",
            fix="Name the folder logs/ of a job: /data/jobs/USER/ID/logs.",
        )
    return [Text(name=str(path), text=path.read_text(errors="replace")) for path in paths]


def _standard_input() -> Text:
    text = "" if sys.stdin.isatty() else sys.stdin.read()
    if not text.strip():
        raise BadInput(
            "examine a text",
            found="standard input has none",
            fix="provision doctor < error.txt, or --logs FOLDER, or -i inventory/SITE",
        )
    return Text(name="standard input", text=text)


def show(found: Sequence[Diagnosis], *, as_json: bool) -> None:
    """Prints diagnoses, first causes first."""
    if as_json:
        typer.echo(json.dumps([asdict(diagnosis) for diagnosis in found], indent=2))
        return
    out = Console(highlight=False)
    for one in found:
        times = f" ({one.count} lines)" if one.count > 1 else ""
        role = "[yellow]consequence[/]" if one.consequence else "[red]cause[/]"
        out.print(f"{role} [bold]{one.row}[/]", end=" ")
        out.print(f"{one.where}{times}: {one.evidence}", markup=False, soft_wrap=True)
        for label, words in (("cause", one.cause), ("check", one.check), ("fix", one.fix)):
            out.print(f"  {label:6} {words}", markup=False, soft_wrap=True)
    if not found:
        out.print("nothing found")
