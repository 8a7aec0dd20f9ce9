"""`python -m runtime smoke`: prove nodes, network and collectives, or name who breaks them."""

from __future__ import annotations

import json
import os
import secrets
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import typer
from rich.progress import Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from runtime.commands.outputs import refuse_unwritable, write
from runtime.errors import BadInput
from runtime.gate.signature import HOST_KEY, SIGNERS
from runtime.job.environment import FORWARDED, matching
from runtime.job.selection import Chosen
from runtime.job.spec import CERTIFICATE, HOSTFILE, Job
from runtime.job.user import go_on_as_cluster_user
from runtime.launch.cli import on_signals, read_nodes
from runtime.remote.session import open_session
from runtime.smoke.certify import signing_with
from runtime.smoke.collectives.plan import LARGEST_BYTES, SWEEP_SECONDS, check_sizes, operations, sweep
from runtime.smoke.formats.junit import junit
from runtime.smoke.formats.page import page
from runtime.smoke.formats.prometheus import prometheus
from runtime.smoke.report import Report, cells, summary, to_json
from runtime.smoke.run import Plan, run_smoke
from runtime.terminal import Console


def smoke(
    hostfile: Path = typer.Option(Path(HOSTFILE), help="The nodes to test, as zerorun reads them."),
    include: str = typer.Option("", help="Only these nodes and slots: te1:0,1@te2."),
    exclude: str = typer.Option("", help="All but these nodes and slots."),
    sizes: str = typer.Option("", help="Bytes of the all-reduce sweep, with commas. Default: 4, 16, ..."),
    max_bytes: int = typer.Option(LARGEST_BYTES, help="The largest message of the default sweep."),
    sweep_seconds: float = typer.Option(
        SWEEP_SECONDS,
        min=0.0,
        help="Seconds for the default sweep: what would not fit is left out; 0: no limit.",
    ),
    timeout: float = typer.Option(30.0, min=1.0, help="Seconds that one step may take."),
    master_port: int = typer.Option(
        0, min=0, max=65535, help="TCP port of the meeting point; 0: one that is free."
    ),
    interface: str = typer.Option("", help="Network interface of the collectives, on every node."),
    ssh_config: str = typer.Option("", help="Configuration file for ssh instead of its own."),
    certificate: Path = typer.Option(Path(CERTIFICATE), help="Where nodes that pass keep their certificate."),
    key: Path = typer.Option(
        Path(HOST_KEY), readable=False, help="This node's own private key, which signs it."
    ),
    signers: Path = typer.Option(Path(SIGNERS), help="Who may sign certificates."),
    for_controller: bool = typer.Option(
        False,
        "--for-controller",
        help="Sign nothing: the controller signs the certificate that --json holds.",
    ),
    valid_days: float = typer.Option(7.0, min=0.0, help="Days after which the certificate has expired."),
    unless_proven: bool = typer.Option(
        False,
        "--unless-proven/--no-unless-proven",
        help="Leave the collectives out where all nodes hold valid certificates.",
    ),
    new: list[str] = typer.Option(
        [], "--new", help="A node that is new: measure its pairs only, where the others hold certificates."
    ),
    least_bandwidth: float = typer.Option(
        0.0, min=0.0, help="MB/s that every pair must carry, beside what the peers of this run do."
    ),
    quick: bool = typer.Option(False, "--quick", help="Hosts and sockets only: no torch, no collectives."),
    json_file: Path = typer.Option(None, "--json", help="Write the result there as well."),
    junit_file: Path = typer.Option(None, "--junit", help="Write the checks as JUnit XML, for a CI system."),
    prometheus_file: Path = typer.Option(
        None, "--prometheus", help="Write gauges in Prometheus' text format."
    ),
    html_file: Path = typer.Option(None, "--html", help="Write one page with heat maps that loads nothing."),
) -> None:
    """Prove that the nodes, their network and collectives over them work, or name who breaks them.

    Exit status: 0 passed, 1 failed, 2 bad input, 4 inconclusive.
    """
    go_on_as_cluster_user(os.environ, lambda words: typer.echo(f"smoke: {words}", err=True))
    refuse_unwritable(path for path in (json_file, junit_file, prometheus_file, html_file) if path)
    swept = _sizes(sizes, max_bytes)
    nodes = read_nodes(hostfile, include=include, exclude=exclude, nnodes=None, nproc_per_node=None)
    words = _worker_words(swept, timeout, 0.0 if sizes else sweep_seconds)
    job = _job(nodes, words, master_port=master_port, interface=interface)
    job = replace(job, certificate_path=str(certificate))
    plan = Plan(
        sizes=swept,
        timeout_seconds=timeout,
        quick=quick,
        unless_proven=unless_proven,
        signing=signing_with(key.expanduser(), signers, for_controller=for_controller),
        valid_seconds=valid_days * 86_400,
        floor=least_bandwidth * 1e6,
        new=_new(new, nodes),
    )
    early: list[int] = []
    on_signals(early.append)
    with open_session(job, ssh_config=ssh_config) as session:
        on_signals(session.interrupt)
        for number in early:
            session.interrupt(number)
        with _progress(0 if quick else len(operations(job.world_size, swept))) as show:
            report = run_smoke(session, plan, show)
        document = to_json(report)
        result = json.loads(document)
        if json_file is not None:
            write(json_file, document)
        if junit_file is not None:
            write(junit_file, junit(result))
        if prometheus_file is not None:
            write(prometheus_file, prometheus(result))
        if html_file is not None:
            write(html_file, page(result))
        _show(report, timeout)
    raise typer.Exit(report.exit_code)


def _job(nodes: tuple[Chosen, ...], words: tuple[str, ...], *, master_port: int, interface: str) -> Job:
    identity = f"smoke-{secrets.token_hex(8)}"
    return Job(
        job_id=identity,
        nodes=nodes,
        kind="program",
        words=words,
        cwd="/",
        python=sys.executable,
        job_path=str(Path(tempfile.gettempdir()) / f"clusterwright-{identity}"),
        master_port=master_port,
        interface=interface,
        forwarded=matching(os.environ, FORWARDED),
        shown_ranks=None,
        keep_logs=False,
    )


def _new(names: Sequence[str], nodes: Sequence[Chosen]) -> frozenset[str]:
    known = [node.host.name for node in nodes]
    if strangers := [name for name in names if name not in known]:
        raise BadInput(
            f"take {', '.join(strangers)} as new (--new)",
            found=f"the nodes of this test are {', '.join(known)}",
            fix="Name some of them.",
        )
    return frozenset(names)


def _sizes(text: str, max_bytes: int) -> tuple[int, ...]:
    if not text:
        return sweep(max_bytes)
    numbers = text.split(",")
    if not all(number.strip().isdecimal() for number in numbers):
        raise BadInput(f"sweep --sizes {text!r}", found="not whole numbers", fix="Write --sizes 4,1024.")
    sizes = tuple(int(number) for number in numbers)
    check_sizes(sizes)
    return sizes


def _worker_words(sizes: Sequence[int], timeout: float, sweep_seconds: float) -> tuple[str, ...]:
    listed = ",".join(map(str, sizes))
    own = ("-P", "-u", "-m", "runtime", "smoke")
    limits = ("--timeout", str(timeout), "--sweep-seconds", str(sweep_seconds))
    return (sys.executable, *own, "--sizes", listed, *limits)


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
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield _Show(progress, total)


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
    last = summary(report, timeout_seconds=timeout)
    console.print(last, markup=False, style=f"bold {colour}", soft_wrap=True)
