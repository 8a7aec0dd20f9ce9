"""`python -m runtime smoke`: prove that collectives work over all nodes, or name who breaks them."""

from __future__ import annotations

import os
import secrets
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from runtime.errors import BadInput
from runtime.launch.cli import on_signals, read_nodes
from runtime.launch.environment import FORWARDED, matching
from runtime.launch.follow import run
from runtime.launch.judge import Problem, ranks_of
from runtime.launch.outcome import Outcome, first_cause
from runtime.launch.preflight import preflight, reach, reach_problems, silence_problems
from runtime.launch.session import Interrupted, Session, open_session
from runtime.launch.spec import HOSTFILE, Job
from runtime.smoke import marks, worker
from runtime.smoke.localize import SILENT_SECONDS, Finding
from runtime.smoke.places import Places
from runtime.smoke.plan import LARGEST_BYTES, check_sizes, operations, sweep
from runtime.smoke.report import Report, cells, conclude, summary, to_json
from runtime.smoke.watch import Watch
from runtime.topology import Topology

# How long the sockets of a cluster in which a step hung may take to answer.
_AFTERMATH_SECONDS = 0.7


def smoke(
    hostfile: Path = typer.Option(Path(HOSTFILE), help="The nodes to test, as zerorun reads them."),
    include: str = typer.Option("", help="Only these nodes and slots: te1:0,1@te2."),
    exclude: str = typer.Option("", help="All but these nodes and slots."),
    sizes: str = typer.Option("", help="Bytes of the all-reduce sweep, with commas. Default: 4, 16, ..."),
    max_bytes: int = typer.Option(LARGEST_BYTES, help="The largest message of the default sweep."),
    timeout: float = typer.Option(30.0, min=1.0, help="Seconds that one step may take."),
    master_port: int = typer.Option(29500, min=1, max=65535, help="TCP port of the meeting point."),
    interface: str = typer.Option("", help="Network interface of the collectives, on every node."),
    ssh_config: str = typer.Option("", help="Configuration file for ssh instead of its own."),
    json_file: Path = typer.Option(None, "--json", help="Write the result there as well."),
) -> None:
    """Prove that collectives work over all nodes, or name who breaks them.

    Exit status: 0 passed, 1 failed, 2 bad input, 4 inconclusive.
    """
    swept = _sizes(sizes, max_bytes)
    if "RANK" in os.environ:
        worker.work(Topology.from_environment(os.environ), sizes=swept, timeout_seconds=timeout)
        return
    nodes = read_nodes(hostfile, include=include, exclude=exclude, nnodes=None, nproc_per_node=None)
    identity = f"smoke-{secrets.token_hex(8)}"
    job = Job(
        job_id=identity,
        nodes=nodes,
        kind="program",
        words=_worker_words(swept, timeout),
        cwd="/",
        python=sys.executable,
        job_path=str(Path(tempfile.gettempdir()) / f"clusterwright-{identity}"),
        master_port=master_port,
        interface=interface,
        forwarded=matching(os.environ, FORWARDED),
        shown_ranks=None,
        keep_logs=False,
    )
    with open_session(job, ssh_config=ssh_config) as session:
        on_signals(session.interrupt)
        report = _test(session, swept, timeout)
        if json_file is not None:
            _write(json_file, to_json(report))
        _show(report, timeout)
    raise typer.Exit(report.exit_code)


def _sizes(text: str, max_bytes: int) -> tuple[int, ...]:
    if not text:
        return sweep(max_bytes)
    numbers = text.split(",")
    if not all(number.strip().isdecimal() for number in numbers):
        raise BadInput(f"sweep --sizes {text!r}", found="not whole numbers", fix="Write --sizes 4,1024.")
    sizes = tuple(int(number) for number in numbers)
    check_sizes(sizes)
    return sizes


def _worker_words(sizes: Sequence[int], timeout: float) -> tuple[str, ...]:
    listed = ",".join(map(str, sizes))
    own = ("-P", "-u", "-m", "runtime", "smoke")
    return (sys.executable, *own, "--sizes", listed, "--timeout", str(timeout))


def _test(session: Session, sizes: Sequence[int], timeout: float) -> Report:
    """The ladder: nodes, sockets, collectives; the first rung that fails is the verdict."""
    started = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    places = Places(session.job.hosts_by_rank(), operations(session.job.world_size, sizes))
    stopwatch = _Stopwatch()
    with _progress(len(places.plan)) as show:
        try:
            findings = _climb(session, places, timeout, show, stopwatch)
        except Interrupted:
            findings = [_interrupted(session)]
    stopwatch.lap("end")
    held = ranks_of(session.job)
    return conclude(
        places,
        findings=findings,
        nodes=[_node_values(name, ranks, session.facts) for name, ranks in held.items()],
        started=started,
        phases=stopwatch.laps,
    )


def _climb(
    session: Session, places: Places, timeout: float, show: _Show, stopwatch: _Stopwatch
) -> list[Finding]:
    show("asking the nodes", 0)
    problems = preflight(session)
    stopwatch.lap("nodes")
    if not problems and len(session.lines) > 1:
        show("connecting every node to every other", 0)
        problems = reach_problems(session, reach(session))
        stopwatch.lap("sockets")
    if problems:
        return [_finding(problem) for problem in problems]
    show("starting the ranks", 0)
    watch = Watch(
        places,
        timeout_seconds=timeout,
        on_progress=lambda seen: show(*_progress_words(seen)),
        on_hang=lambda finding: show.say(str(finding)),
    )
    outcome = run(session, watch)
    stopwatch.add(places.phases(stopwatch.at))
    return _findings_of(session, watch, outcome)


class _Stopwatch:
    """Seconds of each part of the test, one after the other."""

    def __init__(self) -> None:
        self.at = time.monotonic()
        self.laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        """The part that ends now."""
        self.add({name: time.monotonic() - self.at})

    def add(self, laps: Mapping[str, float]) -> None:
        """Parts that followed each other."""
        self.laps |= laps
        self.at += sum(laps.values())


def _findings_of(session: Session, watch: Watch, outcome: Outcome) -> list[Finding]:
    """What stopped the ranks, and, after a hang, which sockets still connect."""
    if session.interrupts:
        return [_interrupted(session)]
    if watch.hang is not None:
        reached = reach(session, timeout_seconds=_AFTERMATH_SECONDS) if len(session.lines) > 1 else ()
        problems = (
            *silence_problems(session, longer_than_seconds=SILENT_SECONDS),
            *reach_problems(session, reached),
        )
        return [watch.hang, *(_finding(problem) for problem in problems)]
    if outcome.ok:
        return []
    cause = first_cause(outcome)
    if cause is None:
        return [_everyone(session, "the job ended and no rank or node said why")]
    ranks = ranks_of(session.job)[cause.host] if cause.rank is None else (cause.rank,)
    fix = f"Read {session.job.job_path}/logs there."
    words = str(replace(cause, said="") if marks.decode(cause.said) else cause)
    return [Finding(check="job", hosts=(cause.host,), ranks=ranks, found=words, fix=fix)]


def _interrupted(session: Session) -> Finding:
    return _everyone(session, f"signal {session.interrupts[0]} ended the test")


def _everyone(session: Session, found: str) -> Finding:
    return Finding(
        check="job",
        hosts=tuple(session.lines),
        ranks=tuple(range(session.job.world_size)),
        found=found,
        fix="Run the test again.",
        conclusive=False,
    )


def _finding(problem: Problem) -> Finding:
    return Finding(
        check=problem.check,
        hosts=(problem.host,),
        ranks=problem.ranks,
        found=f"{problem.where}: {problem.found}",
        fix=problem.fix,
    )


def _node_values(name: str, ranks: Sequence[int], facts: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": name, "ranks": list(ranks), **(asdict(facts[name]) if name in facts else {})}


class _Show:
    """Draws the progress on standard error: what is being done, and how many operations are behind us."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=total)

    def say(self, words: str) -> None:
        """A line that stays."""
        self._progress.console.print(words, markup=False, soft_wrap=True, style="red")

    def __call__(self, words: str, done: int) -> None:
        self._progress.update(self._task, description=words, completed=done)


@contextmanager
def _progress(total: int) -> Iterator[_Show]:
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield _Show(progress, total)


def _progress_words(places: Places) -> tuple[str, int]:
    slowest = min(places.ranks, key=lambda place: place.stage)
    return f"rank {slowest.rank} on {slowest.host} {places.words(slowest)}", places.done_operations


def _show(report: Report, timeout: float) -> None:
    """One table, then what was found, then the verdict."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 100)
    if any(row.done for row in report.rows):
        table = Table("operation", "size", "rounds", "p50", "worst rank", "algbw", "busbw", "contents")
        table.caption = "p50 of the slowest rank; bandwidths in GB/s (10^9 bytes)"
        for row in report.rows:
            table.add_row(*cells(row))
        console.print(table)
    for finding in report.findings:
        console.print(f"{finding.check}: {finding.found}", markup=False, soft_wrap=True, style="red")
        console.print(f"  {finding.fix}", markup=False, soft_wrap=True)
    colour = {"pass": "green", "fail": "red"}.get(report.verdict, "yellow")
    console.print(summary(report, timeout_seconds=timeout), style=f"bold {colour}", soft_wrap=True)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text)
    partial.replace(path)
