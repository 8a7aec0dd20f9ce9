"""`zerorun`: starts a program on all slots of a hostfile, from one of its nodes, and ends it everywhere."""

from __future__ import annotations

import os
import re
import secrets
import signal
import sys
import time
from collections.abc import Callable, Collection
from pathlib import Path

import typer

from runtime import entry
from runtime.as_deepspeed.finder import INSTEAD, VARIABLE, refuse_beside_real
from runtime.edges import private_files
from runtime.errors import BadInput
from runtime.gate.signature import SIGNERS, trust_in
from runtime.job.argv import node_argv, ssh_argv
from runtime.job.env_file import read_env_file
from runtime.job.environment import FORWARDED, matching
from runtime.job.hostfile import parse_hostfile
from runtime.job.selection import Chosen, choose
from runtime.job.spec import (
    CERTIFICATE,
    HOSTFILE,
    Job,
    orders,
    parse_assignments,
    parse_shown,
    redacted,
)
from runtime.job.user import data_folder, go_on_as_cluster_user, jobs_folder
from runtime.launch import sync
from runtime.launch.follow import run
from runtime.launch.other_launchers import Command, check_launcher, count, local_rank_option
from runtime.launch.outcome import Outcome, exit_status, failure_lines, first_cause, job_account
from runtime.launch.preflight import check_nodes
from runtime.probes.preflight_checks import master_name
from runtime.remote.session import Interrupted, open_session
from runtime.terminal import Console, output

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def read_nodes(
    hostfile: Path, *, include: str, exclude: str, nnodes: int | None, nproc_per_node: int | None
) -> tuple[Chosen, ...]:
    """The chosen nodes of a hostfile.

    Raises:
        BadInput: there is no such file (never silently this machine alone), or as `parse_hostfile`, `choose`.
    """
    try:
        text = hostfile.read_text()
    except OSError as e:
        raise BadInput(
            f"read the hostfile {hostfile}",
            found=e.strerror or str(e),
            fix="Pass --hostfile; for this machine alone a file with the line `localhost slots=1` will do.",
        ) from e
    hosts = parse_hostfile(text, source=str(hostfile))
    return choose(hosts, include=include, exclude=exclude, nnodes=nnodes, nproc_per_node=nproc_per_node)


def new_job_id(wanted: str) -> str:
    """The wanted id, checked, or a new one from the time and four random digits."""
    if wanted and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", wanted):
        raise BadInput(
            f"name the job {wanted!r} (--job-id)",
            found="an id names a folder",
            fix="Use letters, digits, points, dashes.",
        )
    return wanted or f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"


def job_folder(log_dir: Path | None, job_id: str) -> str:
    """The folder of the job on every node: given, else of the user on the data disk, else below this one."""
    if log_dir is not None:
        return str(log_dir.absolute())
    if (own := jobs_folder()) is not None:
        return str(own / job_id)
    data = data_folder()
    return str((data if data.is_dir() else Path.cwd()) / "jobs" / job_id)


def kind_of(*, module: bool, no_python: bool) -> str:
    """Which of spec.KINDS the options -m and --no-python ask for."""
    if module and no_python:
        raise BadInput("run a module without Python", found="-m and --no-python", fix="Give one of them.")
    return "module" if module else "program" if no_python else "script"


def on_signals(interrupt: Callable[[int], None]) -> None:
    """Hands SIGINT, SIGTERM and SIGHUP to the session, which ends the job on every node."""
    for number in _SIGNALS:
        signal.signal(number, lambda received, _frame: interrupt(received))


class ConsoleWatcher:
    """Shows the output of ranks: rank 0's as it is, that of others behind `[host:rank]`."""

    def __init__(self, hosts_by_rank: tuple[str, ...], on_failure: Callable[[Outcome], None]) -> None:
        self._hosts = hosts_by_rank
        self.on_failure = on_failure
        self._unread = ""

    def on_text(self, rank: int, piece: str) -> None:
        """Writes a piece, its line's end included, without what moves the cursor or changes the terminal."""
        try:
            shown = output(piece)
            sys.stdout.write(shown if rank == 0 else f"[{self._hosts[rank]}:{rank}] {shown}")
            sys.stdout.flush()
        except BrokenPipeError:
            self._unread = "nobody reads the output any more"
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def on_tick(self) -> str:
        """A job whose reader has left (as in `zerorun ... | head`) ends."""
        return self._unread


@app.command(
    cls=Command,
    context_settings={"allow_interspersed_args": False},
    help="Run PROGRAM on all slots of the hostfile's nodes. Options of zerorun come before PROGRAM. Of your "
    f"variables ranks get {', '.join(FORWARDED)}; set others with --env-file or --env. Options may be "
    "written with underscores, and as DeepSpeed's launcher and torchrun have them.",
)
def zerorun(
    program: str = typer.Argument(help="A Python script, or a module with -m."),
    arguments: list[str] = typer.Argument(None, help="Handed on as they are."),
    hostfile: Path = typer.Option(
        Path(HOSTFILE), "-H", "--hostfile", help="Lines `name slots=N`, in the order of the ranks."
    ),
    include: str = typer.Option("", "-i", "--include", help="Only these nodes and slots: te1:0,1@te2."),
    exclude: str = typer.Option("", "-e", "--exclude", help="All but these nodes and slots."),
    nnodes: str = typer.Option("", "--nnodes", "--num-nodes", metavar="N", help="The first N of the nodes."),
    nproc_per_node: str = typer.Option(
        "",
        "--nproc-per-node",
        "--num-gpus",
        "--num-accelerators",
        metavar="N",
        help="The first N slots of each node.",
    ),
    master_addr: str = typer.Option("", help="Name or address of the first node that the others can reach."),
    master_port: int = typer.Option(
        0, min=0, max=65535, help="TCP port of the meeting point there; 0: one that is free."
    ),
    interface: str = typer.Option("", help="Network interface of the collectives, on every node."),
    env: list[str] = typer.Option(
        [],
        metavar="KEY=VALUE",
        help="Set a variable on every rank (repeat). While zerorun runs, `ps` shows it here, though on no "
        "other node: secrets belong in --env-file.",
    ),
    env_file: Path = typer.Option(
        None,
        metavar="FILE",
        help="Set the variables of a file's KEY=VALUE lines, which only you (or root) may read. --env wins.",
    ),
    job_id: str = typer.Option("", help="Name of the job and of its folder."),
    log_dir: Path = typer.Option(
        None,
        "--log-dir",
        "--enable-each-rank-log",
        help="Folder of the job on nodes, in folders of yours or root's. "
        "Default jobs/USER/JOB_ID on the data disk. Each rank's output is logs/rankN.log in it.",
    ),
    tee: str = typer.Option("", help="Show more ranks than rank 0: `all`, or numbers with commas."),
    timeout: float = typer.Option(0.0, min=0.0, help="Seconds after which the job is ended; 0: never."),
    python: str = typer.Option(sys.executable, help="The interpreter, at the same path on every node."),
    ssh_config: str = typer.Option("", help="Configuration file for ssh instead of its own."),
    certificate: Path = typer.Option(Path(CERTIFICATE), help="The smoke test's certificate on every node."),
    signers: Path = typer.Option(Path(SIGNERS), help="Who may sign certificates."),
    no_gate: bool = typer.Option(False, "--no-gate", help="Start on nodes that no smoke test has proven."),
    module: bool = typer.Option(False, "-m", "--module", help="PROGRAM is a Python module."),
    no_python: bool = typer.Option(False, "--no-python", help="PROGRAM is not for Python."),
    local_rank: bool = typer.Option(
        None,
        "--local-rank/--no-local-rank",
        help="Tell each rank its number on its node as PROGRAM's first argument, --local_rank=N. "
        "Default: where a script names that option.",
    ),
    synced: bool = typer.Option(
        False,
        "--sync",
        help="Bring this folder to the same place on the other nodes first, without what .gitignore names. "
        "What it replaces there is kept in the job's folder; nothing is deleted.",
    ),
    as_deepspeed: bool = typer.Option(
        False,
        "--as-deepspeed",
        help="Answer `import deepspeed` on every rank from this runtime; refused where DeepSpeed is "
        f"installed. {VARIABLE}={INSTEAD} says so for every job, there as well.",
    ),
    launcher: str = typer.Option("", hidden=True),
    force_multi: bool = typer.Option(False, "--force-multi", hidden=True),  # one node is reached as many are
    no_ssh_check: bool = typer.Option(False, "--no-ssh-check", hidden=True),  # the look at nodes uses ssh
    dry_run: bool = typer.Option(False, "--dry-run", help="Print what would be run; start nothing."),
) -> None:
    """Parses the options into a job, then shows or runs it."""
    go_on_as_cluster_user(os.environ, lambda words: typer.echo(f"zerorun: {words}", err=True))
    check_launcher(launcher)
    nodes = read_nodes(
        hostfile,
        include=include,
        exclude=exclude,
        nnodes=count(nnodes, option="--nnodes"),
        nproc_per_node=count(nproc_per_node, option="--nproc-per-node"),
    )
    kind = kind_of(module=module, no_python=no_python)
    identity = new_job_id(job_id)
    hidden = read_env_file(env_file) if env_file is not None else {}
    job = Job(
        job_id=identity,
        nodes=nodes,
        kind=kind,
        words=(program, *(arguments or ())),
        local_rank_option=_local_rank_option(local_rank, kind, program),
        cwd=str(Path.cwd()),
        python=python,
        job_path=job_folder(log_dir, identity),
        master_addr=master_addr,
        master_port=master_port,
        interface=interface,
        forwarded=matching(os.environ, FORWARDED),
        environment={**_answering(as_deepspeed), **hidden, **parse_assignments(env)},
        shown_ranks=parse_shown(tee, sum(len(node.slots) for node in nodes)),
        timeout_seconds=timeout,
        certificate_path=str(certificate),
        gated=not no_gate,
    )
    if dry_run:
        _show(job, ssh_config, hidden)
        return
    if synced:
        _bring(job, ssh_config)
    raise typer.Exit(_launch(job, ssh_config, signers))


def _answering(wanted: bool) -> dict[str, str]:
    """The variable by which a node answers `import deepspeed`, where the job or the shell asks for it."""
    said = os.environ.get(VARIABLE, "")
    if said in ("", "0"):
        if not wanted:
            return {}
        said = "1"
    refuse_beside_real(os.environ)
    return {VARIABLE: said}


def _local_rank_option(wanted: bool | None, kind: str, program: str) -> str:
    """As asked for, else as the script has it."""
    named = local_rank_option(Path(program)) if kind == "script" else ""
    if wanted is None:
        return named
    return (named or "--local_rank") if wanted else ""


def _bring(job: Job, ssh_config: str) -> None:
    """Brings the working folder to the other nodes, and says what that was."""
    console = Console(stderr=True, highlight=False)
    with console.status(f"bringing {job.cwd} to {len(job.nodes)} nodes"):
        brought = sync.bring(job, ssh_config=ssh_config)
    for one in brought:
        told = f"{one.host}: files brought: {len(one.files)}, {one.bytes / 1e6:.1f} MB"
        console.print(told, markup=False, soft_wrap=True)


def _show(job: Job, ssh_config: str, hidden: Collection[str]) -> None:
    """The words that reach each node, and the order that it would read."""
    ordered = orders(job, master_addr=master_name(job), master_port=job.master_port)
    print("# on an address of this machine:", " ".join(node_argv(job.python)))
    for node, order in zip(job.nodes, ordered, strict=True):
        print("#", " ".join(ssh_argv(node.host, python=job.python, ssh_config=ssh_config)))
        print(redacted(order, hidden=hidden))


def _launch(job: Job, ssh_config: str, signers: Path) -> int:
    """Runs the job and reports its end; the status to exit with."""
    console = Console(stderr=True, highlight=False)
    started, clock = time.strftime("%Y-%m-%dT%H:%M:%S%z"), time.monotonic()
    names = ", ".join(node.host.name for node in job.nodes)
    if not job.gated:
        console.print("--no-gate: whether these nodes work together was not asked", style="yellow")
    gate = trust_in(signers) if job.gated else None
    with open_session(job, ssh_config=ssh_config) as session:
        on_signals(session.interrupt)
        try:
            with console.status(f"checking {len(job.nodes)} nodes: {names}"):
                proven = check_nodes(session, gate=gate)
        except Interrupted:
            return 128 + session.interrupts[0]
        where = f"logs in {job.job_path}/logs"
        by = f", proven {proven}" if proven else ""
        console.print(
            f"job {job.job_id}: {job.world_size} ranks on {names}{by}; {where}", markup=False, soft_wrap=True
        )

        def on_failure(known: Outcome) -> None:
            console.print(f"{first_cause(known)}; ending the job", markup=False, soft_wrap=True, style="red")
            _keep_account(console, job, known, started=started, seconds=time.monotonic() - clock)

        outcome = run(session, ConsoleWatcher(job.hosts_by_rank(), on_failure))
    _keep_account(console, job, outcome, started=started, seconds=time.monotonic() - clock)
    if not outcome.ok:
        for line in failure_lines(job, outcome):
            console.print(line, markup=False, soft_wrap=True, style="red")
    return exit_status(outcome)


def _keep_account(console: Console, job: Job, outcome: Outcome, *, started: str, seconds: float) -> None:
    """Writes job.json; a job's end is told, and its nodes are let go in order, on a full disk, too."""
    try:
        private_files.make_job_folder(Path(job.job_path))
        private_files.write(Path(job.job_file), job_account(job, outcome, started=started, seconds=seconds))
    except (OSError, BadInput) as e:
        words = f"{job.job_file} was not written: {e.found if isinstance(e, BadInput) else e.strerror}"
        console.print(words, markup=False, soft_wrap=True, style="yellow")


def main() -> None:
    """Entry point of the console script."""
    sys.exit(entry.run(app))


if __name__ == "__main__":
    main()
