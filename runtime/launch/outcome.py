"""How a job ended, who ended it first, and what a person is told: pure, from what the nodes reported."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from runtime.edges.log_tail import cause_line
from runtime.flight.compare import compare, named
from runtime.flight.dump import Call, Dump
from runtime.job.spec import Job

# What the launcher exits with after its own limit, as timeout(1) does.
TIMED_OUT = 124

# What a rank says when another one has left: such a rank is not the first cause. Sources: gloo's
# transport/tcp, torch's TCPStore, NCCL's watchdog in ProcessGroupNCCL.cpp.
_CONSEQUENCES = re.compile(
    r"Connection (?:closed|reset) by peer|Connection refused|Broken pipe|Timed out waiting|Connect timeout"
    r"|Watchdog caught collective operation timeout|communicator was aborted|Socket Timeout"
    r"|DistNetworkError|DistStoreError|failed to recv, got 0 bytes|remote process exited"
)
_SHOWN_LINES = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class RankEnd:
    """The end of one rank.

    `status` is an exit status, negative for a signal. `at_seconds` is on the launcher's monotonic clock (the
    node sends how long ago it was, so clocks need not agree). `tail` holds its last lines, `asked` says that
    the launcher had begun to stop the job, `calls` are the collectives that the rank remembers.
    """

    rank: int
    host: str
    status: int
    at_seconds: float
    tail: tuple[str, ...]
    asked: bool
    calls: tuple[Call, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeEnd:
    """The end of a node's part: whether each rank there succeeded, or why it is not known."""

    host: str
    ok: bool
    found: str
    at_seconds: float
    asked: bool
    tail: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Everything that the nodes reported; `stopped` is the launcher's own reason for ending the job.

    `standing` are ranks that had not ended when others had failed, each with the state of its process;
    `failing` those that have left what they remember, on their way to a bad end.
    """

    hosts_by_rank: tuple[str, ...]
    ranks: Mapping[int, RankEnd]
    nodes: Mapping[str, NodeEnd]
    stopped: str
    stop_status: int
    standing: Mapping[int, str] = field(default_factory=dict)
    failing: frozenset[int] = frozenset()

    @property
    def ok(self) -> bool:
        """Every rank said that it succeeded, and nobody had to stop the job."""
        every_rank = all(
            rank in self.ranks and self.ranks[rank].status == 0 for rank in range(len(self.hosts_by_rank))
        )
        return every_rank and not self.stopped and all(node.ok for node in self.nodes.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """The first thing that went wrong; `rank` is None where a node and not a rank is at fault."""

    host: str
    rank: int | None
    found: str
    said: str
    tail: tuple[str, ...]
    status: int

    def __str__(self) -> str:
        who = self.host if self.rank is None else f"rank {self.rank} on {self.host}"
        return f"{who} {self.found}" + (f": {self.said}" if self.said else "")


def status_text(status: int) -> str:
    """An exit status in words."""
    if status >= 0:
        return f"ended with status {status}"
    name = signal.Signals(-status).name if -status in signal.Signals.__members__.values() else str(-status)
    hint = ", which the kernel sends when memory runs out" if name == "SIGKILL" else ""
    return f"was ended by {name}{hint}"


def first_cause(outcome: Outcome) -> Cause | None:
    """The failure that explains the others: the earliest that is no consequence, if there is one."""
    candidates = [(_rank_order(end), _rank_cause(end)) for end in outcome.ranks.values() if end.status != 0]
    candidates += [
        ((node.asked, False, node.at_seconds), _node_cause(node))
        for node in outcome.nodes.values()
        if not node.ok and not _explained(outcome, node)
    ]
    candidates = [(order, cause) for order, cause in candidates if not order[0]]
    if not candidates:
        return None
    order, cause = min(candidates, key=lambda candidate: candidate[0])
    return (_held_up(outcome) or cause) if order[1] else cause


def _held_up(outcome: Outcome) -> Cause | None:
    """The rank for which the others waited in vain: the one that is stopped, else the only one left."""
    stopped = [rank for rank, state in outcome.standing.items() if state in "Tt" and state]
    suspects = stopped or list(outcome.standing)
    if len(suspects) != 1:
        return None
    ended = {rank for rank, end in outcome.ranks.items() if end.status != 0}
    waited = sorted(ended | outcome.failing)
    doing = "is stopped (SIGSTOP or a debugger)" if stopped else "still runs"
    return Cause(
        host=outcome.hosts_by_rank[suspects[0]],
        rank=suspects[0],
        found=f"{doing}, while {named(waited)} waited for it in vain",
        said="",
        tail=(),
        status=1,
    )


def is_hang(outcome: Outcome) -> bool:
    """Whether ranks failed, and all of them because others did not come."""
    failed = [end for end in outcome.ranks.values() if end.status != 0 and not end.asked]
    return bool(failed) and all(is_consequence(end.tail) for end in failed)


def _rank_order(end: RankEnd) -> tuple[bool, bool, float]:
    return end.asked, is_consequence(end.tail), end.at_seconds


def is_consequence(tail: Sequence[str]) -> bool:
    """Whether a rank's last words blame the loss of another."""
    return bool(_CONSEQUENCES.search(cause_line(tail)))


def _rank_cause(end: RankEnd) -> Cause:
    return Cause(
        host=end.host,
        rank=end.rank,
        found=status_text(end.status),
        said=cause_line(end.tail),
        tail=end.tail,
        status=end.status,
    )


def _explained(outcome: Outcome, node: NodeEnd) -> bool:
    """A node whose own rank failed needs no reason of its own."""
    return any(end.host == node.host and end.status != 0 for end in outcome.ranks.values())


def _node_cause(node: NodeEnd) -> Cause:
    said = cause_line(node.tail)
    return Cause(host=node.host, rank=None, found=node.found, said=said, tail=node.tail, status=1)


def exit_status(outcome: Outcome) -> int:
    """0 only when every rank said so; the launcher's own reason, else the first cause's status.

    A shell keeps the last eight bits, so nothing above 255 may reach it.
    """
    if outcome.ok:
        return 0
    if outcome.stopped:
        return outcome.stop_status
    cause = first_cause(outcome)
    if cause is None:
        return 1
    return cause.status if 0 < cause.status < 126 else min(255, 128 - cause.status) if cause.status < 0 else 1


def failure_lines(job: Job, outcome: Outcome) -> tuple[str, ...]:
    """The first cause, its last words, who ended because of it, and where to read on."""
    cause = first_cause(outcome)
    lines = [f"stopped: {outcome.stopped}"] if outcome.stopped else []
    if cause is not None:
        lines.append(str(cause))
        lines += [f"  | {line}" for line in cause.tail[-_SHOWN_LINES:]]
        where = f"{job.job_path}/logs" + (f"/rank{cause.rank}.log" if cause.rank is not None else "")
        lines.append(f"its log: {where} on {cause.host}")
    elif not outcome.stopped:
        lines.append("no rank or node reported why")
    lines += remembered(job, outcome)
    victims = [rank for rank in range(job.world_size) if cause is None or rank != cause.rank]
    unheard = [rank for rank in victims if rank not in outcome.ranks]
    followed = [rank for rank in victims if rank in outcome.ranks and outcome.ranks[rank].status != 0]
    if followed and cause is not None:
        lines.append(f"ended because of it: {_ranks(followed, outcome)}")
    if unheard:
        lines.append(f"never said that they succeeded: {_ranks(unheard, outcome)}")
    return tuple(lines)


def remembered(job: Job, outcome: Outcome) -> list[str]:
    """After a hang or a time-out: who is behind, or astray, by what the ranks remember."""
    dumps = [Dump(rank=end.rank, calls=end.calls) for end in outcome.ranks.values() if end.calls]
    if not dumps or not (is_hang(outcome) or outcome.stop_status == TIMED_OUT):
        return []
    return [f"they remember: {finding.found}" for finding in compare(dumps, world_size=job.world_size)]


def _ranks(ranks: Sequence[int], outcome: Outcome) -> str:
    return ", ".join(f"rank {rank} on {outcome.hosts_by_rank[rank]}" for rank in ranks)


def job_account(job: Job, outcome: Outcome | None, *, started: str, seconds: float) -> str:
    """The content of job.json: what was asked, where, and how it ended; no variables, which may be secret."""
    cause = first_cause(outcome) if outcome else None
    account = {
        "job_id": job.job_id,
        "started": started,
        "seconds": round(seconds, 3),
        "kind": job.kind,
        "words": job.words,
        "cwd": job.cwd,
        "certificate": "valid" if job.gated else "not asked for (--no-gate)",
        "nodes": [{"name": node.host.name, "slots": node.slots} for node in job.nodes],
        "status": exit_status(outcome) if outcome else None,
        "stopped": outcome.stopped if outcome else "",
        "cause": str(cause) if cause else "",
        "remembered": remembered(job, outcome) if outcome else [],
    }
    return json.dumps(account, indent=2) + "\n"
