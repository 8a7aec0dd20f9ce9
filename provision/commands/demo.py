"""`provision demo`: the whole way on this machine, step by step, each a command that a person could give."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import typer
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from provision.commands.folders import user_cache
from provision.edges import process, ssh
from provision.edges.terminal import Console
from provision.errors import CommandFailed, ProvisionError
from provision.lab.image.build import image_of
from provision.lab.layout import Lab, lay_out
from provision.model import Machine

_CHECKOUT = Path(__file__).parents[2]
_BIN = Path(sys.executable).parent
_USER = "trainer"  # cluster_user, by default
_JOB = PurePosixPath("/data/jobs") / _USER / "demo"
_SITE = ("ansible-playbook", "playbooks/site.yml", "-i", "inventory/lab")
_PYTHON = "/data/miniconda3/envs/llm/bin/python"

Act = Callable[[Callable[[str], None]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step: its name, the command shown for it, and what it does with each line that is printed."""

    name: str
    shown: str
    act: Act


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a step ended: its wall time in seconds, and None or what went wrong."""

    name: str
    shown: str
    seconds: float
    error: ProvisionError | None


def _here(name: str, *argv: str | Path, timeout_seconds: float) -> Step:
    """A step that is a command on this machine."""
    words = [str(word) for word in argv]

    def act(on_line: Callable[[str], None]) -> None:
        status = process.stream(
            [_BIN / words[0], *words[1:]],
            timeout_seconds=timeout_seconds,
            on_line=on_line,
            cwd=_CHECKOUT,
            env={**os.environ, "PATH": f"{_BIN}:{os.environ['PATH']}", "PYTHONUNBUFFERED": "1"},
        )
        if status != 0:
            raise CommandFailed(
                f"finish the step {name}",
                found=f"status {status}",
                fix="Its last lines are above; the log has all.",
            )

    return Step(name=name, shown=shlex.join(words), act=act)


def _there(name: str, machine: Machine, *argv: str, timeout_seconds: float) -> Step:
    """A step that is a command on a node."""

    def act(on_line: Callable[[str], None]) -> None:
        ssh.run(machine, argv, timeout_seconds=timeout_seconds, on_line=on_line)

    return Step(name=name, shown=f"{machine.name}: {shlex.join(argv)}", act=act)


def _deliver(name: str, machines: Sequence[Machine]) -> Step:
    """The step that puts the example on every node."""
    files = sorted(path for path in (_CHECKOUT / "examples" / "gpt").iterdir() if path.is_file())

    def act(on_line: Callable[[str], None]) -> None:
        for machine in machines:
            made = ("install", "-d", "-o", _USER, "-g", _USER, str(_JOB))
            ssh.run(machine, made, timeout_seconds=30)
            ssh.put(machine, files, _JOB)
            on_line(f"{machine.name}: {len(files)} files")

    return Step(name=name, shown=f"copy examples/gpt to {_JOB} of every node", act=act)


def machines_of(lab: Lab) -> list[Machine]:
    """The lab's nodes as the controller reaches them."""
    return [
        Machine(
            name=node.name,
            address=node.address,
            user="root",
            key_files=(lab.ssh_key,),
            known_hosts=(lab.known_hosts,),
        )
        for node in lab.nodes
    ]


def steps_of(lab: Lab) -> list[Step]:
    """The demo, in order."""
    machines = machines_of(lab)
    sharded, plain = str(_JOB / "sharded.jsonl"), str(_JOB / "plain.jsonl")
    first = machines[0]
    return [
        _here("host packages", "provision", "lab", "requirements", "--install", timeout_seconds=600),
        _here("mirror", "provision", "lab", "mirror", timeout_seconds=900),
        _here("lab", "provision", "lab", "up", timeout_seconds=600),
        _here("site.yml", *_SITE, timeout_seconds=1500),
        _deliver("example", machines),
        _there(
            "ZeRO-3 job",
            first,
            *("zerorun", str(_JOB / "train.py"), "--deepspeed_config", str(_JOB / "ds_config.json")),
            *("--metrics", sharded),
            timeout_seconds=300,
        ),
        _there(
            "one process",
            first,
            *("runuser", "-u", _USER, "--", _PYTHON, str(_JOB / "plain.py"), "--metrics", plain),
            timeout_seconds=300,
        ),
        _there("equal losses", first, _PYTHON, str(_JOB / "metrics.py"), sharded, plain, timeout_seconds=60),
    ]


def _play(step: Step, console: Console, log: Path) -> Outcome:
    started = time.monotonic()
    console.print(f"[bold]{step.name}[/]  [dim]{step.shown}[/]", highlight=False)
    with (
        log.open("a") as file,
        Progress(
            SpinnerColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
            console=console,
            transient=True,
        ) as progress,
    ):
        task = progress.add_task("")

        def on_line(line: str) -> None:
            file.write(line + "\n")
            progress.update(task, description=line.strip()[: console.width - 20].replace("[", r"\["))

        try:
            step.act(on_line)
        except ProvisionError as e:
            return Outcome(name=step.name, shown=step.shown, seconds=time.monotonic() - started, error=e)
    return Outcome(name=step.name, shown=step.shown, seconds=time.monotonic() - started, error=None)


def _table(outcomes: Sequence[Outcome], left_out: Sequence[Step]) -> Table:
    table = Table(title="clusterwright demo")
    for heading, justify in (
        ("step", "left"),
        ("seconds", "right"),
        ("verdict", "left"),
        ("command", "left"),
    ):
        table.add_column(heading, justify="right" if justify == "right" else "left", overflow="fold")
    for outcome in outcomes:
        verdict = "[green]passed[/]" if outcome.error is None else "[red]failed[/]"
        table.add_row(outcome.name, f"{outcome.seconds:.1f}", verdict, outcome.shown)
    for step in left_out:
        table.add_row(step.name, "-", "[yellow]not run[/]", step.shown)
    table.add_row("total", f"{sum(outcome.seconds for outcome in outcomes):.1f}", "", "")
    return table


def _tail(log: Path, lines: int) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


_GO_ON = """Go on with:
  provision lab shell te1                          a shell on a node; `zerorun --help` there
  ansible-playbook playbooks/site.yml -i inventory/lab          again: nothing changes
  provision lab status                             what runs
  make demo-down                                   take it all down"""


def play(
    as_json: bool = typer.Option(False, "--json", help="Print the outcome of each step as JSON at the end."),
) -> None:
    """Bare machine -> lab of four nodes -> site.yml -> smoke test -> a ZeRO-3 job -> a report."""
    console = Console(stderr=as_json)
    log = user_cache() / "demo.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("")
    steps = steps_of(
        lay_out(name="lab", subnet="10.77.0.0/24", count=4, disk_bytes=12 << 30, base=image_of(user_cache()))
    )
    outcomes: list[Outcome] = []
    for step in steps:
        outcomes.append(_play(step, console, log))
        if outcomes[-1].error:
            console.print(_tail(log, 25), markup=False, highlight=False)
            break
    console.print(_table(outcomes, steps[len(outcomes) :]))
    if as_json:
        rows = [{"step": o.name, "seconds": round(o.seconds, 1), "passed": o.error is None} for o in outcomes]
        typer.echo(json.dumps(rows, indent=2))
    if error := outcomes[-1].error:
        console.print(f"Everything that was printed: {log}", highlight=False)
        raise error
    console.print(_GO_ON, highlight=False, markup=False)
