"""What a person is told when a job has ended: pure text."""

from __future__ import annotations

import json
from collections.abc import Sequence

from runtime.flight.compare import compare
from runtime.flight.dump import Dump
from runtime.job.spec import Job
from runtime.launch.outcome import TIMED_OUT, Outcome, exit_status, first_cause, is_hang

_SHOWN_LINES = 15


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
