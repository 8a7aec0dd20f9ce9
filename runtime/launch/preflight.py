"""What must hold on every node before a job starts: all are asked, and every failure named, at once."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict
from datetime import UTC, datetime

from runtime.errors import NodesNotReady
from runtime.gate.certificate import Certificate, Trust, offer, proven_by, read, refusals
from runtime.probes import reachability
from runtime.probes.job import Request
from runtime.probes.preflight_checks import Problem, explain_silence, judge, master_name, ranks_of
from runtime.probes.reachability import Blame, Reach, blame
from runtime.remote.session import Line, Session

TIMEOUT_SECONDS = 20.0
# For the launcher to read what every node says of every other.
_SECONDS_OF_A_PAIR = 5e-5


def preflight(
    session: Session, *, timeout_seconds: float = TIMEOUT_SECONDS, compares: bool = False
) -> tuple[Problem, ...]:
    """Asks every node what it is; all that speaks against starting. `compares` as of `Request`."""
    greet(session, compares=compares)
    session.hear(timeout_seconds)
    return (*silence(session), *judge(session.job, session.facts))


def greet(session: Session, *, compares: bool = False) -> None:
    """Asks every node what it is."""
    for node_rank, host in enumerate(session.lines):
        request = asdict(_request(session, node_rank, compares))
        session.send(host, "hello", name=host, request=request, master_port=session.job.master_port)


def silence(session: Session) -> tuple[Problem, ...]:
    """The nodes that have not said what they are, or what nobody understands, and why."""
    lines = session.lines.values()
    return tuple(_silence(session, line) for line in lines if line.facts is None or line.fault)


def _request(session: Session, node_rank: int, compares: bool) -> Request:
    job = session.job
    return Request(
        node_rank=node_rank,
        master=master_name(job),
        kind=job.kind,
        program=job.words[0],
        cwd=job.cwd,
        job_path=job.job_path,
        certificate_path=job.certificate_path,
        compares=compares,
    )


def _silence(session: Session, line: Line) -> Problem:
    ranks = ranks_of(session.job)[line.host]
    if line.fault:
        fix = f"Run the role runtime for it. If that changes nothing, find out who else is on {line.host}."
        return Problem(check="node", host=line.host, ranks=ranks, found=line.fault, fix=fix)
    check, found, fix = explain_silence(line.host, session.job.python, line.status, tuple(line.errors))
    return Problem(check=check, host=line.host, ranks=ranks, found=found, fix=fix)


def reach_ssh(session: Session, targets: Sequence[str]) -> tuple[Reach, ...]:
    """What every node that answers gets of the ssh ports of those that do not."""
    hosts = list(session.facts)
    session.broadcast("reach_ssh", hosts=hosts, targets=list(targets), timeout=reachability.CONNECT_SECONDS)
    answers = session.gather(
        "ssh_reached",
        2 * reachability.CONNECT_SECONDS,
        hosts=hosts,
        fits=lambda _, frame: _targets(frame["ssh_reached"]) == sorted(targets),
    )
    return tuple(one for frame in answers.values() for one in frame["ssh_reached"])


def reach(
    session: Session,
    *,
    timeout_seconds: float = reachability.CONNECT_SECONDS,
    hosts: Collection[str] | None = None,
) -> tuple[tuple[Reach, ...], tuple[str, ...]]:
    """Connects each of the hosts (default: all) to every other on fresh ports.

    Returns:
        A result for each pair, and the hosts that gave none in time.
    """
    session.broadcast("listen", hosts=hosts, token=session.token)
    ports = session.gather("listening", timeout_seconds, hosts=hosts)
    peers = [
        reachability.Peer(host=host, address=frame["address"], port=frame["port"])
        for host, frame in ports.items()
    ]
    for own in peers:
        others = [asdict(peer) for peer in peers if peer.host != own.host]
        session.send(own.host, "connect", peers=others, timeout=timeout_seconds, token=session.token)
    answers = session.gather(
        "reached",
        2 * timeout_seconds + _SECONDS_OF_A_PAIR * len(ports) ** 2,
        hosts=ports,
        fits=lambda host, frame: _targets(frame["reached"]) == sorted(ports.keys() - {host}),
    )
    silent = tuple(host for host in (session.lines if hosts is None else hosts) if host not in answers)
    return tuple(pair for frame in answers.values() for pair in frame["reached"]), silent


def unanswered(session: Session, silent: Sequence[str]) -> tuple[Problem, ...]:
    """What is to be said of the nodes that did not tell whom they reach."""
    return tuple(_unanswered(session, session.lines[host]) for host in silent)


def _unanswered(session: Session, line: Line) -> Problem:
    if line.fault:
        return _silence(session, line)
    said = f" ({line.errors[-1]})" if line.errors else ""
    return Problem(
        check="node",
        host=line.host,
        ranks=ranks_of(session.job)[line.host],
        found=f"did not tell whom it reaches{f', and its side ended{said}' * (line.status is not None)}",
        fix=f"See `ssh {line.host} dmesg` and memory there; start again.",
    )


def _targets(reached: Sequence[Reach]) -> list[str]:
    return sorted(one.target for one in reached)


def reach_problems(
    session: Session, reached: Sequence[Reach], *, hosts: Collection[str] | None = None
) -> tuple[Problem, ...]:
    """The nodes and pairs that explain what could not be reached among the hosts (default: all)."""
    held = ranks_of(session.job)
    return tuple(
        Problem(check="sockets", host=b.host, ranks=held[b.host], found=b.found, fix=_socket_fix(session, b))
        for b in blame(list(session.lines if hosts is None else hosts), reached)
    )


def _socket_fix(session: Session, blamed: Blame) -> str:
    where = blamed.target or blamed.host
    given = f"TCP port {session.job.master_port} and " if session.job.master_port else ""
    return (
        f"See `nft list ruleset` on {where}: jobs use {given}the TCP ports of "
        "`sysctl net.ipv4.ip_local_port_range` between all nodes."
    )


def silence_problems(session: Session, *, longer_than_seconds: float) -> tuple[Problem, ...]:
    """Nodes that have not been heard over their control channels for that time."""
    held = ranks_of(session.job)
    silent = {host: session.silent_seconds(host) for host in session.lines}
    return tuple(
        Problem(
            check="ssh",
            host=host,
            ranks=held[host],
            found=f"has not been heard over ssh for {seconds:.1f} s either",
            fix=f"The node or its network is gone: try `ssh {host} true`.",
        )
        for host, seconds in silent.items()
        if seconds > longer_than_seconds
    )


def check_nodes(session: Session, *, gate: Trust | None) -> str:
    """Preflight, the smoke test's certificates and, with several nodes, the mesh of sockets.

    Args:
        gate: who may sign certificates; None asks for none.

    Returns:
        Who proved the nodes; empty where that was not asked.

    Raises:
        NodesNotReady: with every node and pair that cannot take part.
    """
    problems = preflight(session, compares=gate is not None)
    known: dict[str, Certificate | str] = {}
    if gate is not None:
        now = datetime.now(UTC)
        known = {host: read(facts, now=now, trust=gate) for host, facts in session.facts.items()}
        altered = {host for host, facts in session.facts.items() if facts.changed}
        problems = (*problems, *refusals(session.job, known, altered=altered))
    if not problems and len(session.lines) > 1:
        reached, silent = reach(session)
        problems = (*unanswered(session, silent), *reach_problems(session, reached))
    if problems:
        proven = offer(session.job, known, without={problem.host for problem in problems})
        together = f" Proven together, and well: --include {'@'.join(proven)}" if proven else ""
        raise NodesNotReady(
            f"start {session.job.world_size} ranks on {len(session.lines)} nodes",
            found="\n  " + "\n  ".join(str(problem) for problem in problems),
            fix=f"Nothing was started.{together}",
        )
    return proven_by(known.values())
