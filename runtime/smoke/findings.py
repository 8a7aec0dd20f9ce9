"""What the stages found, as findings of the report."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from runtime.launch.outcome import Outcome, first_cause
from runtime.launch.preflight import reach, reach_problems, silence, silence_problems
from runtime.probes.finding import Finding, of_node
from runtime.probes.preflight_checks import Problem, ranks_of
from runtime.probes.reachability import Reach, between
from runtime.remote.session import Session
from runtime.smoke.collectives import events
from runtime.smoke.collectives.stragglers import SILENT_SECONDS, Watch, localize

# How long the sockets of a cluster in which a step hung may take to answer.
_AFTERMATH_SECONDS = 0.7


def of_ranks(session: Session, watch: Watch, outcome: Outcome) -> list[Finding]:
    """What stopped the ranks, and, after a hang, which sockets still connect."""
    if session.interrupts:
        return [interrupted(session)]
    if watch.hang is not None:
        several = len(session.lines) > 1
        reached, _ = reach(session, timeout_seconds=_AFTERMATH_SECONDS) if several else ((), ())
        problems = (
            *silence_problems(session, longer_than_seconds=SILENT_SECONDS),
            *reach_problems(session, reached),
        )
        return [watch.hang, *(of_problem(problem) for problem in problems)]
    if outcome.ok:
        return []
    cause = first_cause(outcome)
    if cause is None:
        return [everyone(session, "the job ended and no rank or node said why")]
    if cause.rank is not None and watch.progress.is_joining(cause.rank) and cause.status == 1:
        # It gave up waiting for somebody who did not come.
        now = watch.failed_at or time.monotonic()
        return [localize(watch.progress, now=now, waited_seconds=now - watch.moved_at)]
    ranks = ranks_of(session.job)[cause.host] if cause.rank is None else (cause.rank,)
    fix = f"Read {session.job.job_path}/logs there."
    words = str(replace(cause, said="") if events.decode(cause.said) else cause)
    return [Finding(check="job", hosts=(cause.host,), ranks=ranks, found=words, fix=fix)]


def of_silence(session: Session, ssh_reached: Sequence[Reach]) -> list[Finding]:
    """Nodes that do not answer the launching one, or the way between the two where others reach them."""
    launcher = session.job.nodes[0].host.name
    found = []
    for problem in silence(session):
        reaching = between(launcher, problem.host, ssh_reached)
        finding = of_problem(problem)
        found.append(_of_way(finding, launcher, reaching) if reaching else finding)
    return found


def _of_way(finding: Finding, launcher: str, reaching: Sequence[str]) -> Finding:
    (silent,) = finding.hosts
    others = ", ".join(reaching)
    return replace(
        finding,
        hosts=(launcher, silent),
        where=f"{launcher} <-> {silent}",
        found=f"{launcher} <-> {silent}: {launcher} cannot reach {silent}, but {others} can",
        fix=f"See `nft list ruleset` and `ip route` on {launcher} and, from {reaching[0]}, on {silent}.",
    )


def interrupted(session: Session) -> Finding:
    """A signal ended the test: nobody is to blame."""
    return everyone(session, f"signal {session.interrupts[0]} ended the test")


def everyone(session: Session, found: str, check: str = "job") -> Finding:
    """Something that names nobody, and so is inconclusive."""
    return Finding(
        check=check,
        hosts=tuple(session.lines),
        ranks=tuple(range(session.job.world_size)),
        found=found,
        fix="Run the test again.",
        conclusive=False,
    )


def of_problem(problem: Problem) -> Finding:
    """What the launcher's own checks say."""
    return of_node(problem.check, problem.host, problem.ranks, problem.found, problem.fix)


def unheard(session: Session, host: str) -> Finding:
    """A node that said what it is and then fell silent."""
    found = "answered at first, and then not any more"
    fix = f"See `ssh {host} dmesg` and memory there; run the test again."
    return of_node("node", host, ranks_of(session.job)[host], found, fix)
