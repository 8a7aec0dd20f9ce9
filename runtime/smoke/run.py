"""The smoke test in its stages: hosts, sockets, collectives. One that fails is the verdict and the last."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Protocol

from runtime.edges.addresses import is_loopback
from runtime.gate.certificate import CONTROLLER, Certificate
from runtime.launch.follow import run
from runtime.launch.preflight import TIMEOUT_SECONDS, greet, reach, reach_problems, reach_ssh, unanswered
from runtime.probes.finding import Finding
from runtime.probes.host import Survey
from runtime.probes.preflight_checks import judge, ranks_of
from runtime.probes.reachability import Reach
from runtime.probes.stream import PairResult
from runtime.remote.session import Interrupted, Session
from runtime.smoke.ask import ask
from runtime.smoke.certify import Signing, carried, certify, draft, proven_until, revoke, seconds_left
from runtime.smoke.checks import CATALOGUE, FAIL, PASS, checks
from runtime.smoke.collectives import transport
from runtime.smoke.collectives.plan import SWEPT, operations
from runtime.smoke.collectives.progress import Progress
from runtime.smoke.collectives.stragglers import Watch
from runtime.smoke.collectives.transport import judge_transports
from runtime.smoke.findings import everyone, interrupted, of_problem, of_ranks, of_silence, unheard
from runtime.smoke.host import registry
from runtime.smoke.host.registry import Nodes
from runtime.smoke.network import firewall_checks, measure, pair_checks
from runtime.smoke.network.pair_schedule import Pair, around
from runtime.smoke.report import Report, conclude

# Nodes that are well answer in a second or two. The others are not waited for before the rest is measured.
_PROMPT_SECONDS = 4.0


class Show(Protocol):
    """Draws the progress of a test."""

    def say(self, words: str) -> None:
        """A line that stays."""

    def __call__(self, words: str, done: int) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is tested: sizes of the sweep in bytes, seconds that a step may take; quick: no torch.

    `unless_proven`: no torch either where all nodes hold a valid certificate of each other. `signing` says
    who signs the certificate of nodes that pass, which holds for `valid_seconds`. `floor`: bytes a second
    that every pair must carry, 0 where nobody demands it. `new`: only pairs of these nodes are measured (and
    a yardstick), where the others hold valid certificates of each other; what is carried over expires with
    those.
    """

    sizes: Sequence[int]
    timeout_seconds: float
    quick: bool
    unless_proven: bool
    signing: Signing
    valid_seconds: float
    floor: float
    new: frozenset[str] = frozenset()


class _Stopwatch:
    """Seconds of each part of the test, one after the other."""

    def __init__(self) -> None:
        self.at = time.monotonic()
        self.laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        """The part that ends now."""
        self.add({name: time.monotonic() - self.at})

    def add(self, laps: Mapping[str, float]) -> None:
        """Parts that followed each other; what is done again adds up."""
        self.laps |= {name: self.laps.get(name, 0.0) + seconds for name, seconds in laps.items()}
        self.at += sum(laps.values())


@dataclass(slots=True, kw_only=True)
class _SmokeRun:
    """What is known so far. `done` holds the evidence of each check that was carried out."""

    session: Session
    plan: Plan
    progress: Progress
    show: Show
    watch: _Stopwatch = field(default_factory=_Stopwatch)
    findings: list[Finding] = field(default_factory=list)
    pairs: dict[Pair, PairResult] = field(default_factory=dict)
    reached: tuple[Reach, ...] = ()
    surveys: Mapping[str, Survey] = field(default_factory=dict)
    done: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    left_out: str = ""
    carried: tuple[Certificate, ...] = ()
    made: Certificate | None = None

    def nodes(self) -> None:
        """The first two stages, with the nodes that answer; ssh may meanwhile wait for the others."""
        self.show("asking the nodes", 0)
        greet(self.session)
        started = time.monotonic()
        self.session.hear(_PROMPT_SECONDS)
        prompt = set(self.session.facts)
        self.sockets(self.hosts())
        ssh_reached: Sequence[Reach] = ()
        if missing := [name for name in self.session.lines if name not in prompt]:
            self.show(f"waiting for {', '.join(missing)}", 0)
            ssh_reached = reach_ssh(self.session, missing)
        self.session.hear(TIMEOUT_SECONDS - (time.monotonic() - started))
        self.watch.lap("nodes")
        if set(self.session.facts) != prompt:
            # Late, not silent. What all nodes are compared with must hold all nodes, so once more.
            self.findings.clear()
            self.skipped.clear()
            self.sockets(self.hosts())
        self.findings[:0] = of_silence(self.session, ssh_reached)

    def hosts(self) -> Nodes:
        """First stage: what each node is, by itself and against the others."""
        job, facts = self.session.job, self.session.facts
        self.findings += [of_problem(problem) for problem in judge(job, facts)]
        self.show("asking the nodes for names, clocks, limits, disks", 0)
        nodes = ask(self.session)
        self.surveys = nodes.surveys
        pair_checks.reachable_floor(self.plan.floor, nodes.surveys)
        against = (*registry.unprobed(nodes), *registry.judge(nodes))
        known = {(finding.check, finding.hosts) for finding in self.findings}
        self.findings += [finding for finding in against if (finding.check, finding.hosts) not in known]
        self.findings += [
            unheard(self.session, name)
            for name in self.session.facts
            if name not in nodes.compute and not self.session.lines[name].fault
        ]
        self.done |= registry.evidence(nodes)
        self.skipped |= registry.not_applicable(nodes)
        self.watch.lap("nodes")
        return nodes

    def sockets(self, nodes: Nodes) -> None:
        """Second stage: every node to every other, connected, then measured."""
        hosts = _addressed(self.session)
        if len(hosts) < 2:
            reason = "one node" if len(self.session.lines) == 1 else "fewer than two nodes can be measured"
            self.skipped |= {name: reason for name in CATALOGUE if name.startswith("sockets.")}
            return
        self.show("connecting every node to every other", 0)
        self.reached, silent = reach(self.session, hosts=hosts)
        named = {host for finding in self.findings if finding.check == "node" for host in finding.hosts}
        mute = [host for host in silent if host not in named and not self.session.lines[host].fault]
        unreached = (
            *unanswered(self.session, mute),
            *reach_problems(self.session, self.reached, hosts=hosts),
        )
        self.findings += [of_problem(problem) for problem in unreached]
        self._strangers(hosts)
        open_pairs = [(one.source, one.target) for one in self.reached if one.ok]
        if self.plan.new:
            self.carried = carried(self.session, self.plan.signing, self.session.lines.keys() - self.plan.new)
        self.done["sockets.connect"] = (
            f"{len(open_pairs)} of {len(hosts) * (len(hosts) - 1)} directions connect"
        )
        chosen = around(self.plan.new, hosts) if self.carried else set(open_pairs)
        self._measure([pair for pair in open_pairs if pair in chosen], nodes, hosts)
        self.watch.lap("sockets")

    def _strangers(self, hosts: Sequence[str]) -> None:
        """Whether somebody without rights gets to ports of the kind that jobs use; each node tries."""
        fences = {name: seen.fence for name, seen in self.surveys.items() if name in hosts}
        tried = measure.intrude(self.session, hosts) if firewall_checks.is_wanted(fences) else {}
        held = {name: self.session.facts[name].address for name in hosts}
        self.findings += firewall_checks.judge_fences(fences, tried, held, ranks_of(self.session.job))
        self.done |= firewall_checks.evidence(fences, tried)
        self.skipped |= firewall_checks.not_applicable(fences, tried)

    def _measure(self, pairs: Sequence[Pair], nodes: Nodes, hosts: Sequence[str]) -> None:
        # A test that fails anyway should say so soon; who is slow besides shows in short streams as well.
        incomplete = len(self.session.facts) < len(self.session.lines)
        brief = self.plan.quick or incomplete or bool(self.findings)
        self.pairs = measure.measure_pairs(
            self.session,
            pairs,
            bounds=measure.QUICK if brief else measure.NORMAL,
            compute=nodes.compute,
            progress=lambda words: self.show(words, 0),
        )
        held = nodes.ranks
        self.findings += pair_checks.judge_pairs(
            self.pairs, surveys=nodes.surveys, compute=nodes.compute, ranks=held
        )
        if self.plan.floor and not any(finding.check == "bandwidth" for finding in self.findings):
            self.findings += pair_checks.below_floor(self.pairs, self.plan.floor, held)
        self.done |= pair_checks.evidence(self.pairs, hosts, nodes.surveys)
        if self.carried and self.pairs:
            until = min(one.expires for one in self.carried)
            self.done["sockets.bandwidth"] += f"; the others were proven before, until {until}"
        missing = [pair for pair in pairs if pair not in self.pairs]
        if missing:
            named = ", ".join(" -> ".join(pair) for pair in missing[:5])
            self.findings.append(
                everyone(self.session, f"{len(missing)} pairs gave no result: {named}", "bandwidth")
            )

    def collectives(self) -> None:
        """Third stage: ranks on all nodes."""
        self.show("starting the ranks", 0)
        watch = Watch(
            self.progress,
            timeout_seconds=self.plan.timeout_seconds,
            on_progress=lambda seen: self.show(*_progress_words(seen)),
            on_hang=lambda finding: self.show.say(str(finding)),
        )
        outcome = run(self.session, watch)
        self.watch.add(self.progress.phases(self.watch.at))
        self.watch.lap("end")
        self.findings += of_ranks(self.session, watch, outcome)
        chosen = self.progress.transports_by_host
        self.findings += judge_transports(chosen, self.surveys, ranks_of(self.session.job))
        self.done |= transport.evidence(chosen)
        self.skipped |= transport.not_applicable(self.progress.backend, len(self.session.lines), chosen)
        if self.progress.finished:
            count = sum(not measured.left_out for measured in self.progress.measured)
            done = f"{count} operations done by every rank"
            self.done |= {
                "collectives.progress": done,
                "collectives.contents": f"every element right; {done}",
            }

    def leave_out(self) -> None:
        """Decides whether collectives are run at all, and says why where they are not."""
        if self.plan.quick:
            self.left_out = "--quick"
        elif not self.findings and self.plan.unless_proven:
            until = proven_until(self.session, self.plan.signing)
            self.left_out = f"proven until {until}" if until else ""
        if self.left_out:
            reason = f"left out: {self.left_out}"
            self.skipped |= {name: reason for name in CATALOGUE if name.startswith("collectives.")}

    def certificate(self, started: str) -> None:
        """Last stage: nodes that passed are certified; those that are named no longer are."""
        report = self._concluded(started)
        reason = "no test that passed"
        if report.verdict == FAIL:
            named = {host for finding in report.findings if finding.conclusive for host in finding.hosts}
            self.findings += [of_problem(problem) for problem in revoke(self.session, named)]
        elif report.verdict == PASS and self.left_out:
            reason = f"left out: {self.left_out}"
        elif report.verdict == PASS and self.plan.signing.refusal:
            reason = self.plan.signing.refusal
        elif report.verdict == PASS:
            self._certify(report)
            return
        self.skipped["certificate.written"] = reason

    def _certify(self, report: Report) -> None:
        rates = [pair.bytes_per_s / 1e9 for pair in self.pairs.values() if pair.bytes_per_s]
        rates += [rate for one in self.carried if (rate := one.figures.get("slowest_pair_gb_s"))]
        reduced = [
            row.figures.busbw_gb_s for row in report.rows if row.operation.step == SWEPT and row.figures
        ]
        figures = {"slowest_pair_gb_s": min(rates, default=None), "busbw_gb_s": [None, *reduced][-1]}
        valid = min(self.plan.valid_seconds, seconds_left(self.carried, datetime.now(UTC)))
        made = draft(self.session, self.plan.signing, valid_seconds=valid, figures=figures)
        until = f"until {made.expires} for {', '.join(made.nodes)}"
        self.made = made
        if made.signer == CONTROLLER:
            self.done["certificate.written"] = f"the controller signs it and has it written, {until}"
        else:
            problems = certify(self.session, made, self.plan.signing)
            self.findings += [of_problem(problem) for problem in problems]
            self.done["certificate.written"] = f"signed by {made.signer}, {until}"
        self.watch.lap("certificate")

    def report(self, started: str) -> Report:
        """What came of it."""
        self.watch.lap("end")
        report = self._concluded(started)
        made = asdict(self.made) if self.made else None
        judged = checks(report.findings, done=self.done, skipped=self.skipped)
        return replace(report, checks=judged, certificate=made)

    def _concluded(self, started: str) -> Report:
        return conclude(
            self.progress,
            findings=self.findings,
            nodes=[
                _node_values(name, ranks, self.session) for name, ranks in ranks_of(self.session.job).items()
            ],
            started=started,
            phases=self.watch.laps,
            left_out=self.left_out,
            pairs=_pair_values(self.reached, self.pairs),
        )


def run_smoke(session: Session, plan: Plan, show: Show) -> Report:
    """Tests stage by stage, as far as they pass.

    Raises:
        BadInput: a demand that the hardware cannot meet, or a key that cannot sign.
    """
    started = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    progress = Progress(session.job.hosts_by_rank(), operations(session.job.world_size, plan.sizes))
    state = _SmokeRun(session=session, plan=plan, progress=progress, show=show)
    try:
        state.nodes()
        state.leave_out()
        if not state.findings and not state.left_out:
            state.collectives()
        state.certificate(started)
    except Interrupted:
        state.findings.append(interrupted(session))
    return state.report(started)


def _addressed(session: Session) -> list[str]:
    """Nodes that others can be asked to connect to: a loopback address counts only where all have one."""
    addresses = {name: facts.address for name, facts in session.facts.items() if facts.address}
    all_loopback = all(is_loopback(address) for address in addresses.values())
    return [name for name, address in addresses.items() if all_loopback or not is_loopback(address)]


def _pair_values(reached: Sequence[Reach], measured: Mapping[Pair, PairResult]) -> list[dict[str, Any]]:
    """Every ordered pair that was tried, with the error where it did not connect."""
    unmeasured = [
        PairResult(source=one.source, target=one.target, connected=one.ok, error=one.error)
        for one in reached
        if (one.source, one.target) not in measured
    ]
    found = sorted((*measured.values(), *unmeasured), key=lambda pair: (pair.source, pair.target))
    return [asdict(pair) for pair in found]


def _node_values(name: str, ranks: Sequence[int], session: Session) -> dict[str, Any]:
    facts = session.facts
    return {"name": name, "ranks": list(ranks), **(asdict(facts[name]) if name in facts else {})}


def _progress_words(progress: Progress) -> tuple[str, int]:
    slowest = min(progress.ranks, key=lambda place: place.stage)
    return f"rank {slowest.rank} on {slowest.host} {progress.words(slowest)}", progress.done_operations
