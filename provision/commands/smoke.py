"""`provision smoke`: the proof of a cluster, run from the controller, with the doctor's causes."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from provision.commands.drill import DrillRow, drill, table_of
from provision.commands.which_lab import existing
from provision.diagnose.causes import explain
from provision.diagnose.rows import ROWS
from provision.edges import ssh
from provision.edges.files import refuse_unwritable
from provision.edges.terminal import Console
from provision.errors import BadInput, CommandFailed
from provision.inventory.site import read_whole
from provision.inventory.trust import controller_key
from provision.lab.fault.drill import Outcome
from provision.lab.record import write_file
from provision.lab.requirements import require
from provision.model import Machine
from provision.smoke.remote import Ended, Signing, run_smoke
from provision.smoke.result import INCONCLUSIVE, explained, harmless

_LIMIT_SECONDS, _ANSWER_SECONDS = 900.0, 20.0
_out = Console(highlight=False)


def smoke(
    inventory: Annotated[
        Path | None, typer.Option("--inventory", "-i", help="The site, for example inventory/lab.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Nodes and sockets only, no collectives.")] = False,
    timeout: Annotated[float, typer.Option(min=1.0, help="Seconds that one step may take.")] = 30.0,
    max_bytes: Annotated[int | None, typer.Option(help="The largest message of the sweep.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the result there as well.")] = None,
    junit_file: Annotated[
        Path | None, typer.Option("--junit", help="Write the checks as JUnit XML, for a CI system.")
    ] = None,
    prometheus_file: Annotated[
        Path | None, typer.Option("--prometheus", help="Write gauges in Prometheus' text format.")
    ] = None,
    html_file: Annotated[
        Path | None, typer.Option("--html", help="Write one page with heat maps that loads nothing.")
    ] = None,
    is_drill: Annotated[
        bool, typer.Option("--drill", help="Break a lab with each fault in turn: is each one named?")
    ] = False,
    name: Annotated[str, typer.Option("--name", help="The lab of the drill.")] = "lab",
    faults: Annotated[
        list[str] | None, typer.Option("--fault", help="Only this fault of the drill; can be repeated.")
    ] = None,
    together: Annotated[
        bool, typer.Option("--together", help="Drill two and three faults that are there at once.")
    ] = False,
) -> None:
    """Prove that a cluster works, or name what breaks it: node, link, direction, cause and fix.

    Exit status: 0 passed, 1 failed, 2 bad input, 4 inconclusive. Of a drill: 0 every fault was named, 1 not.
    """
    formats = {"junit": junit_file, "prometheus": prometheus_file, "html": html_file}
    shown = {name: path for name, path in formats.items() if path}
    of_drill = bool(faults or together)
    if (inventory is None) != is_drill or (shown if is_drill else of_drill) or (faults and together):
        raise BadInput(
            "choose what to test",
            found="it takes -i, with which go --junit, --prometheus and --html, or --drill, with which goes "
            "one of --fault and --together",
            fix="provision smoke -i inventory/SITE, or provision smoke --drill --name LAB",
        )
    refuse_unwritable([*shown.values(), *([json_file] if json_file else [])])
    options = [
        *("--timeout", f"{timeout:g}"),
        *(["--max-bytes", str(max_bytes)] if max_bytes else []),
        *(["--quick"] if quick else []),
    ]
    if is_drill:
        _drill(name, faults or [], options, json_file, together=together)
    if inventory is not None:
        _prove(inventory, options, json_file, shown)


def _prove(inventory: Path, options: list[str], json_file: Path | None, formats: Mapping[str, Path]) -> None:
    site = read_whole(inventory, environment=os.environ)
    signing = Signing(
        key=controller_key(site.secrets, "prove a cluster"), nodes=[machine.name for machine in site.machines]
    )
    first, silent = _first_that_answers(site.machines)
    with Console(stderr=True).status(f"the test runs on {first.name}"):
        ended = run_smoke(
            first,
            options,
            limit_seconds=_LIMIT_SECONDS,
            on_line=_say,
            formats=list(formats),
            signing=signing,
        )
    if json_file is not None and ended.result is not None:
        _write(json_file, explained(ended.result, ROWS))
    for name, text in ended.formats.items():
        write_file(formats[name], _own_page(text, first.name) if name == "html" else text)
    _tell_causes(ended)
    for why in silent:
        _say(f"not asked from here: {why}")
    raise typer.Exit(ended.exit_code or (1 if silent else 0))


def _first_that_answers(machines: Sequence[Machine]) -> tuple[Machine, list[str]]:
    """The node that runs the test, and why those before it do not.

    Raises:
        CommandFailed: none answers.
    """
    silent: list[CommandFailed] = []
    for machine in machines:
        try:
            ssh.run(machine, ("true",), timeout_seconds=_ANSWER_SECONDS)
        except CommandFailed as e:
            silent.append(e)
            continue
        return machine, [str(one) for one in silent]
    raise CommandFailed(
        f"ask a node of {len(machines)}",
        found="\n".join(f"{one.asked}: {one.found}" for one in silent),
        fix=silent[0].fix,
    )


def _own_page(page: str, node: str) -> str:
    """The page is HTML that a node made, and is opened here."""
    return harmless(page, title=f"Smoke test, as {node} tells it")


def _say(line: str) -> None:
    _out.print(line, markup=False, soft_wrap=True)


def _tell_causes(ended: Ended) -> None:
    """What the doctor knows of each finding, beyond the finding's own fix."""
    for finding in ended.result.findings if ended.result else ():
        for row in explain(finding.check, finding.found, ROWS):
            _say(f"doctor: {row.name} ({', '.join(finding.hosts)})")
            _say(f"  cause  {row.cause}\n  check  {row.check}\n  fix    {row.fix}")
    if ended.result is None and ended.exit_code == INCONCLUSIVE:
        _say("INCONCLUSIVE: the test left no result; it was ended or ran out of its time")


def _drill(
    name: str, faults: list[str], options: list[str], json_file: Path | None, *, together: bool
) -> None:
    require()
    rows = drill(existing(name), faults, options, together=together)
    if json_file is not None:
        _write(json_file, [asdict(row) for row in rows])
    _out.print(table_of(rows))
    missed = [row for row in rows if row.outcome is not Outcome.named]
    if missed:
        raise _missed(missed, len(rows))
    _say(f"every fault was named: {len(rows)} of {len(rows)}")


def _missed(missed: list[DrillRow], count: int) -> CommandFailed:
    return CommandFailed(
        f"name every fault: {count - len(missed)} of {count} were",
        found="; ".join(f"{row.fault} ({row.outcome})" for row in missed),
        fix="The table above says what the test said instead.",
    )


def _write(path: Path, document: Any) -> None:
    write_file(path, json.dumps(document, indent=2) + "\n")
