"""The result of a smoke test: verdict, figures and findings, as data and as JSON. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from runtime.probes.finding import Finding
from runtime.smoke.checks import FAIL, INCONCLUSIVE, PASS, Check
from runtime.smoke.collectives.plan import PARTED, TRAINING, Operation, size_text
from runtime.smoke.collectives.progress import Measured, Progress

EXIT_CODES = {PASS: 0, FAIL: 1, INCONCLUSIVE: 4}
# Of any clock; a rank may say that it took none.
_LEAST_SECONDS = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Time and bandwidths of one operation by the definitions of nccl-tests (doc/PERFORMANCE.md).

    GB/s is 10^9 bytes in a second. `algbw = S / t`; `busbw = algbw * factor`, the factor undoing what the
    operation sends more or less than S, the tensor's size. t is the median over the rounds, of the slowest
    rank, `worst_rank`.
    """

    p50_seconds: float
    worst_rank: int
    algbw_gb_s: float
    busbw_gb_s: float


def bus_factor(step: str, world_size: int) -> float:
    """What `algbw` is multiplied by: the bytes that cross each link over S, with n ranks.

    2(n-1)/n for an all-reduce, (n-1)/n where each rank keeps its own part, else 1. S of an operation that
    gives parts is what all parts have together.
    """
    if step == "all-reduce":
        return 2 * (world_size - 1) / world_size
    return (world_size - 1) / world_size if step in PARTED else 1.0


def figures(
    step: str, *, size: int, world_size: int, seconds_by_rank: Mapping[int, Sequence[float]]
) -> Figures:
    """Figures from every rank's iteration times in seconds; a barrier (size 0) has no bandwidth."""
    medians = {rank: median(seconds) for rank, seconds in seconds_by_rank.items()}
    worst = max(sorted(medians), key=medians.__getitem__)
    algbw = size / max(medians[worst], _LEAST_SECONDS) / 1e9
    return Figures(
        p50_seconds=medians[worst],
        worst_rank=worst,
        algbw_gb_s=algbw,
        busbw_gb_s=algbw * bus_factor(step, world_size),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One operation: figures where every rank measured it, who got wrong contents, why it was left out."""

    operation: Operation
    figures: Figures | None
    rounds: int
    wrong_ranks: tuple[int, ...]
    left_out: str = ""

    @property
    def done(self) -> bool:
        """Whether every rank came to its end."""
        return self.figures is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything that a smoke test has to say; `nodes` are their facts, `phases` seconds of each part.

    `pairs` holds what each ordered pair of nodes carried; `left_out`
    says why no collectives were to run, where they were not. `certificate` is what nodes that passed get.
    """

    verdict: str
    seconds: float
    phases: Mapping[str, float]
    started: str
    backend: str
    world_size: int
    nodes: tuple[Mapping[str, Any], ...]
    rows: tuple[Row, ...]
    findings: tuple[Finding, ...]
    left_out: str = ""
    pairs: tuple[Mapping[str, Any], ...] = ()
    checks: tuple[Check, ...] = ()
    certificate: Mapping[str, Any] | None = None

    @property
    def exit_code(self) -> int:
        """0 pass, 1 fail, 4 inconclusive; 2, bad input, never gets as far as a report."""
        return EXIT_CODES[self.verdict]


def rows_of(progress: Progress) -> tuple[Row, ...]:
    """A row for each operation of the plan, also for those that were not reached."""
    return tuple(
        _row(operation, measured, len(progress.ranks))
        for operation, measured in zip(progress.plan, progress.measured, strict=True)
    )


def _row(operation: Operation, measured: Measured, world_size: int) -> Row:
    complete = len(measured.seconds_by_rank) == world_size
    return Row(
        operation=operation,
        figures=figures(
            operation.step,
            size=operation.size,
            world_size=world_size,
            seconds_by_rank=measured.seconds_by_rank,
        )
        if complete
        else None,
        rounds=min((len(seconds) for seconds in measured.seconds_by_rank.values()), default=0),
        wrong_ranks=tuple(sorted(measured.wrong_by_rank)),
        left_out=measured.left_out,
    )


def contents_findings(progress: Progress) -> tuple[Finding, ...]:
    """A finding for each rank that received something else than was sent, with the first such element."""
    found = []
    for operation, measured in zip(progress.plan, progress.measured, strict=True):
        for rank, wrong in sorted(measured.wrong_by_rank.items()):
            host = progress.ranks[rank].host
            what = "losses" if operation.step == TRAINING else "elements"
            found.append(
                Finding(
                    check="contents",
                    hosts=(host,),
                    ranks=(rank,),
                    found=f"rank {rank} on {host} got {wrong['count']} wrong {what} in {operation}: "
                    f"number {wrong['index']} is {wrong['found']:g} and must be {wrong['expected']:g}",
                    fix="Memory, network card or driver corrupts data: take the node out.",
                )
            )
    return tuple(found)


def conclude(
    progress: Progress,
    *,
    findings: Sequence[Finding],
    nodes: Sequence[Mapping[str, Any]],
    started: str,
    phases: Mapping[str, float],
    left_out: str = "",
    pairs: Sequence[Mapping[str, Any]] = (),
) -> Report:
    """Fail when anything is named, pass only when every rank did everything, else inconclusive.

    A test without collectives has no ranks; it passes when nothing was found.
    """
    every = (*findings, *contents_findings(progress))
    if any(finding.conclusive for finding in every):
        verdict = FAIL
    elif (left_out or progress.finished) and not every:
        verdict = PASS
    else:
        verdict = INCONCLUSIVE
    return Report(
        verdict=verdict,
        seconds=sum(phases.values()),
        phases=dict(phases),
        started=started,
        backend=progress.backend,
        world_size=len(progress.ranks),
        nodes=tuple(nodes),
        rows=rows_of(progress),
        findings=every,
        left_out=left_out,
        pairs=tuple(pairs),
    )


def to_json(report: Report) -> str:
    """The report for programs: sizes in bytes, times in seconds, bandwidths in 10^9 bytes in a second."""
    values = {
        "verdict": report.verdict,
        "exit_code": report.exit_code,
        "started": report.started,
        "seconds": round(report.seconds, 3),
        "phases": {name: round(seconds, 3) for name, seconds in report.phases.items()},
        "backend": report.backend,
        "world_size": report.world_size,
        "nodes": list(report.nodes),
        "findings": [asdict(finding) for finding in report.findings],
        "operations": [_row_values(row) for row in report.rows],
        "left_out": report.left_out,
        "pairs": list(report.pairs),
        "checks": [asdict(check) for check in report.checks],
        "certificate": report.certificate,
    }
    return json.dumps(values, indent=2) + "\n"


def _row_values(row: Row) -> dict[str, Any]:
    measured = asdict(row.figures) if row.figures else {}
    return {
        **asdict(row.operation),
        "name": str(row.operation),
        "done": row.done,
        "rounds": row.rounds,
        "wrong_ranks": row.wrong_ranks,
        "left_out": row.left_out,
        **measured,
    }


def cells(row: Row) -> tuple[str, ...]:
    """A row of the table for people: operation, size, rounds, p50, worst rank, algbw, busbw, contents."""
    operation = row.operation
    ends = {
        "broadcast": f"broadcast from {operation.source}",
        "ring": f"ring {operation.target:+d}",
    }.get(operation.step, operation.step)
    size = size_text(operation.size) if operation.size else ""
    if row.figures is None:
        return ends, size, "", "left out" if row.left_out else "not done", "", "", "", ""
    measured = row.figures
    bandwidths = (f"{measured.algbw_gb_s:.3g}", f"{measured.busbw_gb_s:.3g}") if operation.size else ("", "")
    contents = f"wrong on {', '.join(map(str, row.wrong_ranks))}" if row.wrong_ranks else "right"
    return (
        ends,
        size,
        str(row.rounds),
        time_text(measured.p50_seconds),
        str(measured.worst_rank),
        *bandwidths,
        contents if operation.size else "",
    )


def time_text(seconds: float) -> str:
    """Microseconds below a millisecond, milliseconds below a second."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} us"
    return f"{seconds * 1e3:.2f} ms" if seconds < 1 else f"{seconds:.2f} s"


def summary(report: Report, *, timeout_seconds: float) -> str:
    """The last line."""
    over = f" over {report.backend}" if report.backend else ""
    nodes = f"{report.world_size} ranks on {len(report.nodes)} nodes{over}"
    phases = ", ".join(f"{name} {seconds:.1f}" for name, seconds in report.phases.items())
    return (
        f"{report.verdict.upper()}: {nodes}, {_done_text(report)} in "
        f"{report.seconds:.1f} s ({phases}; limit for one step {timeout_seconds:g} s)"
    )


def _done_text(report: Report) -> str:
    measured = sum(pair["bytes_per_s"] is not None for pair in report.pairs)
    pairs = f"{measured} of {len(report.pairs)} pairs measured"
    if report.left_out:
        return f"{pairs}, collectives left out ({report.left_out})"
    short = sum(bool(row.left_out) for row in report.rows)
    rest = f" ({short} for want of time)" if short else ""
    return f"{sum(row.done for row in report.rows)} of {len(report.rows)} operations done{rest}, {pairs}"
