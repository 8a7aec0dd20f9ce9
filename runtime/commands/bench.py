"""`python -m runtime bench`: the engine beside its peers, measured in one run on this machine."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import typer
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from runtime.bench.contest import (
    MARK,
    OURS,
    Contestant,
    Row,
    Sample,
    Workload,
    contestants,
    order_of,
    plot,
    rows_of,
    to_json,
)
from runtime.commands.outputs import refuse_unwritable, write
from runtime.edges.process import Channel, adopt_orphans, kill_descendants
from runtime.errors import BadInput, RuntimeFault
from runtime.terminal import Console

app = typer.Typer(help="Compare with peers, side by side in one run.", no_args_is_help=True)

_JOB_SECONDS = 600.0
_KILL_SECONDS = 0.05  # between rounds of killing what still runs of a job
_WIDTH = 140  # columns of the table where no terminal says how many there are
_USUAL = Workload()


@app.callback()
def _root() -> None:
    pass


@app.command()
def zero(
    peers: str = typer.Option("ddp,fsdp2", help="With commas: ddp, fsdp2, deepspeed; or none."),
    stages: str = typer.Option("1,2,3", help="ZeRO stages, with commas."),
    ranks: str = typer.Option("2", help="Ranks on this machine; with commas: one table for each number."),
    rounds: int = typer.Option(3, min=1, help="Jobs of each contestant; they take turns."),
    width: int = typer.Option(_USUAL.width, min=64, help="Width of the model, a multiple of 64."),
    depth: int = typer.Option(_USUAL.depth, min=1, help="Layers of the model."),
    vocabulary: int = typer.Option(_USUAL.vocabulary, min=2, help="Rows of its embedding and its output."),
    sequence: int = typer.Option(_USUAL.sequence, min=2, help="Tokens of a sample."),
    micro_batch: int = typer.Option(_USUAL.micro_batch, min=1, help="Samples of a rank in a micro-step."),
    accumulation: int = typer.Option(_USUAL.accumulation, min=1, help="Micro-steps in an optimizer step."),
    steps: int = typer.Option(_USUAL.steps, min=1, help="Measured steps of a job, after two to warm up."),
    python: list[str] = typer.Option(
        [], help="PEER=PATH: the Python of an environment that has this peer and this runtime's needs."
    ),
    json_file: Path = typer.Option(None, "--json", help="Write all that was measured there as well."),
    plot_file: Path = typer.Option(None, "--plot", help="Draw bytes of model state there, as SVG."),
) -> None:
    """Step time and memory of stages 1 to 3 beside DDP, bare FSDP2 and DeepSpeed, as medians and ratios."""
    refuse_unwritable(path for path in (json_file, plot_file) if path)
    workload = Workload(
        width=width,
        depth=depth,
        vocabulary=vocabulary,
        sequence=sequence,
        micro_batch=micro_batch,
        accumulation=accumulation,
        steps=steps,
    )
    if width % 64:
        raise BadInput(
            f"build a model of width {width}", found="heads have 64", fix="Write a multiple of 64."
        )
    named = [] if peers == "none" else [name for name in peers.split(",") if name]
    everyone = contestants(named, _numbers(stages, "--stages"))
    _end_with_all_ranks()
    pythons = _pythons(python)
    rows = [
        row
        for count in _numbers(ranks, "--ranks")
        for row in rows_of(_contest(everyone, workload, count, rounds, pythons), count)
    ]
    Console(width=None if sys.stdout.isatty() else _WIDTH).print(_table(rows))
    if json_file is not None:
        write(json_file, json.dumps(to_json(rows, workload), indent=2) + "\n")
    if plot_file is not None:
        write(plot_file, plot(rows))


def _end_with_all_ranks() -> None:
    """Makes this process die of a signal as of Ctrl-C, so that `_job` ends what it started."""
    adopt_orphans()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _frame: sys.exit(128 + number))


def _numbers(text: str, option: str) -> list[int]:
    words = text.split(",")
    if not all(word.strip().isdecimal() and int(word) >= 0 for word in words):
        raise BadInput(f"read {option} {text!r}", found="not whole numbers", fix=f"Write {option} 1,2.")
    return [int(word) for word in words]


def _pythons(given: Sequence[str]) -> Mapping[str, str]:
    pairs = [word.partition("=") for word in given]
    if not all(name and path for name, _, path in pairs):
        raise BadInput("read --python", found=", ".join(given), fix="Write --python deepspeed=/path/python.")
    return {name: path for name, _, path in pairs}


def _contest(
    everyone: Sequence[Contestant],
    workload: Workload,
    ranks: int,
    rounds: int,
    pythons: Mapping[str, str],
) -> dict[Contestant, list[Sample]]:
    samples: dict[Contestant, list[Sample]] = {contestant: [] for contestant in everyone}
    columns = (MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=rounds * len(everyone))
        for round_number in range(rounds):
            for contestant in order_of(round_number, everyone):
                progress.update(task, description=f"{contestant}, {ranks} ranks")
                interpreter = pythons.get(contestant.engine, sys.executable)
                samples[contestant].append(_job(contestant, workload, ranks, interpreter))
                progress.advance(task)
    return samples


def _job(contestant: Contestant, workload: Workload, ranks: int, python: str) -> Sample:
    """Runs one contestant's ranks to their end.

    Raises:
        RuntimeFault: they did not come to a result; says what they printed last.
    """
    spec = json.dumps({"contestant": asdict(contestant), "workload": asdict(workload)})
    torchrun = (python, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}")
    said: list[str] = []

    def hear(line: bytes) -> None:
        said.append(line.decode(errors="replace").rstrip("\n"))

    channel = Channel(
        (*torchrun, "-m", "runtime.bench.worker", spec),
        on_line=hear,
        on_error_line=hear,
        on_end=lambda _status: None,
    )
    try:
        channel.hang_up()
        channel.end(_JOB_SECONDS)
    finally:
        while kill_descendants(os.getpid()):
            time.sleep(_KILL_SECONDS)
    results = [line.partition(MARK)[2] for line in said if MARK in line]
    if not results:
        raise RuntimeFault(
            f"measure {contestant} with {ranks} ranks",
            found="\n".join(["no result; it printed last:", *said[-12:]]),
            fix="Run it with fewer ranks, a smaller model, or without this peer.",
        )
    return Sample(**json.loads(results[-1]))


def _table(rows: Sequence[Row]) -> Table:
    headings = (
        "ranks",
        "engine",
        "step",
        "ours/its",
        "computed",
        "ours/its",
        "state B/param",
        "definition",
        "peak RSS +",
        "ours/its",
    )
    table = Table(
        *headings,
        caption="medians; ours/its below 1: we need less; computed: processor time of a rank",
    )
    for row in rows:
        table.add_row(
            str(row.ranks),
            f"[bold]{row.contestant}[/]" if row.contestant.engine == OURS else str(row.contestant),
            f"{row.seconds * 1000:.0f} ms",
            _ratio(row.time_ratio),
            f"{row.processor_seconds * 1000:.0f} ms",
            _ratio(row.processor_ratio),
            f"{row.state_bytes_per_parameter:.2f}",
            f"{row.expected_bytes_per_parameter:.2f}",
            f"{row.peak_bytes / 2**20:.0f} MiB",
            _ratio(row.peak_ratio),
        )
    return table


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
