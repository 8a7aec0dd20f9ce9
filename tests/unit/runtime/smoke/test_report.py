"""Plan, patterns, figures and verdicts of the smoke test."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from runtime.commands.smoke import _show
from runtime.errors import BadInput
from runtime.probes.finding import Finding
from runtime.smoke.collectives import events
from runtime.smoke.collectives.pattern import ITERATIONS, PERIOD, Pattern, compare
from runtime.smoke.collectives.plan import check_sizes, operations, size_text, sweep
from runtime.smoke.collectives.progress import Progress
from runtime.smoke.report import Report, bus_factor, cells, conclude, figures, summary, time_text, to_json
from tests.conftest import RecordRefusal


def test_the_plan_holds_every_root_both_ways_of_the_ring_and_every_collective() -> None:
    plan = operations(3, [4, 1024])

    assert [op.source for op in plan if op.step == "broadcast"] == [0, 1, 2]
    assert [op.target for op in plan if op.step == "ring"] == [1, -1]
    assert [op.step for op in plan[5:]] == [
        "barrier",
        *("all-gather",) * 2,
        *("reduce-scatter",) * 2,
        *("all-to-all",) * 2,
        *("all-reduce",) * 2,
        "training",
    ]
    assert [op.size for op in plan[-5:]] == [12, 1048572, 4, 1024, 0]
    assert [op.number for op in plan] == list(range(len(plan)))


def test_a_rank_alone_has_no_neighbour() -> None:
    assert "ring" not in {op.step for op in operations(1, [4])}


def test_the_sweep_goes_from_4_bytes_to_64_mebibytes() -> None:
    assert sweep(64 << 20) == tuple(4**k for k in range(1, 14))
    assert sweep(100) == (4, 16, 64, 100)


@pytest.mark.parametrize("sizes", [(), (0,), (6,), (-4,), (4, 2)])
def test_sizes_that_are_no_floats_are_refused(sizes: tuple[int, ...]) -> None:
    with pytest.raises(BadInput):
        check_sizes(sizes)


def test_bandwidths_are_those_of_nccl_tests() -> None:
    """8 ranks, 1 GiB in 10 ms: algbw 107.37 GB/s, busbw 2(n-1)/n of it, as in doc/PERFORMANCE.md."""
    got = figures(
        "all-reduce",
        size=1 << 30,
        world_size=8,
        seconds_by_rank={rank: [0.009, 0.008, 0.5] for rank in range(7)} | {7: [0.01, 0.01, 0.01]},
    )

    assert (got.worst_rank, got.p50_seconds) == (7, 0.01)
    assert got.algbw_gb_s == pytest.approx(107.374, rel=1e-4)
    assert got.busbw_gb_s == pytest.approx(107.374 * 1.75, rel=1e-4)


@pytest.mark.parametrize(
    ("step", "factor"),
    [("broadcast", 1), ("ring", 1), ("all-gather", 0.75), ("all-to-all", 0.75), ("all-reduce", 1.5)],
)
def test_the_factor_of_the_bus_for_four_ranks(step: str, factor: float) -> None:
    assert bus_factor(step, 4) == factor


def test_every_element_depends_on_rank_offset_and_iteration() -> None:
    pattern = Pattern(elements=10_000, world_size=3, device="cpu")

    found = pattern.of(2, 5, 10_000).tolist()

    assert found == [(ITERATIONS * 2 + 5 + i) % PERIOD for i in range(10_000)]


def test_the_sum_is_the_sum_of_all_ranks() -> None:
    pattern = Pattern(elements=9_000, world_size=4, device="cpu")

    summed = sum(pattern.of(rank, 7, 9_000) for rank in range(4))

    assert compare(pattern.sum(7, 9_000), summed) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("fault", ["flipped bit", "stale iteration", "swapped chunks", "missing rank", "nan"])
def test_wrong_contents_do_not_pass(fault: str) -> None:
    pattern = Pattern(elements=4096, world_size=4, device="cpu")
    expected = pattern.sum(3, 4096)
    found = expected.clone()
    if fault == "flipped bit":
        found[17] += 1
    elif fault == "stale iteration":
        found = pattern.sum(2, 4096)
    elif fault == "swapped chunks":
        found[:1024], found[1024:2048] = expected[1024:2048].clone(), expected[:1024].clone()
    elif fault == "missing rank":
        found = expected - pattern.of(1, 3, 4096)
    else:
        found[0] = float("nan")

    wrong = compare(found, expected)

    assert wrong is not None
    if fault == "flipped bit":
        assert (wrong.count, wrong.index, wrong.found - wrong.expected) == (1, 17, 1.0)


HOSTS = ("te1", "te2")


def run(*, wrong: dict[str, Any] | None = None, until: int | None = None) -> Progress:
    """Two ranks that did all operations, or those before `until`."""
    progress = Progress(HOSTS, operations(2, [4]))
    for rank in range(2):
        progress.hear(rank, {"event": events.STARTED}, 0.0)
        progress.hear(rank, {"event": events.IMPORTED}, 1.0)
        progress.hear(rank, {"event": events.JOINED, "backend": "gloo"}, 2.0)
    for operation in progress.plan[:until]:
        for rank in range(2):
            progress.hear(rank, {"event": "begin", "operation": operation.number}, 3.0)
            done = {"seconds": [0.001, 0.002, 0.003], "wrong": wrong if rank == 1 else None}
            progress.hear(rank, {"event": "done", "operation": operation.number, **done}, 4.0)
    return progress


def concluded(progress: Progress, *findings: Finding) -> Report:
    nodes = [{"name": host} for host in HOSTS]
    return conclude(progress, findings=findings, nodes=nodes, started="t", phases={"nodes": 1.0, "end": 0.5})


def finding(*, conclusive: bool) -> Finding:
    return Finding(check="c", hosts=("te1",), ranks=(0,), found="f", fix="x", conclusive=conclusive)


def test_all_operations_done_and_right_pass() -> None:
    report = concluded(run())

    assert (report.verdict, report.exit_code, report.backend) == ("pass", 0, "gloo")
    assert all(row.done for row in report.rows)
    assert run().phases(0.0) == {"start": 0.0, "import": 1.0, "join": 1.0, "collectives": 2.0}
    assert summary(report, timeout_seconds=30).startswith("PASS: 2 ranks on 2 nodes over gloo, 13 of 13")


def test_wrong_contents_fail_and_name_rank_host_and_element() -> None:
    report = concluded(run(wrong={"count": 3, "index": 7, "expected": 8.0, "found": 9.0}))

    assert (report.verdict, report.exit_code) == ("fail", 1)
    assert report.findings[0].found == (
        "rank 1 on te2 got 3 wrong elements in broadcast from rank 0 of 1 MiB: number 7 is 9 and must be 8"
    )
    assert cells(report.rows[0])[-1] == "wrong on 1"


@pytest.mark.parametrize(
    ("conclusive", "verdict", "exit_code"), [(True, "fail", 1), (False, "inconclusive", 4)]
)
def test_a_finding_fails_unless_it_names_nobody(conclusive: bool, verdict: str, exit_code: int) -> None:
    report = concluded(run(), finding(conclusive=conclusive))

    assert (report.verdict, report.exit_code) == (verdict, exit_code)


def test_what_was_not_done_does_not_pass() -> None:
    report = concluded(run(until=2))

    assert (report.verdict, report.exit_code) == ("inconclusive", 4)
    assert cells(report.rows[2])[3] == "not done"


def test_the_json_holds_units_and_every_operation() -> None:
    values = json.loads(to_json(concluded(run())))

    assert values["verdict"] == "pass"
    assert values["operations"][-2]["name"] == "all-reduce of 4 B"
    assert values["operations"][-2]["p50_seconds"] == 0.002
    assert values["operations"][-2]["busbw_gb_s"] == pytest.approx(4 / 0.002 / 1e9)
    assert [node["name"] for node in values["nodes"]] == ["te1", "te2"]


@pytest.mark.attack("rank")
@pytest.mark.parametrize("backend", ["[/x]", "[link=http://198.51.100.1]gloo", "gloo\nPASS: all is well"])
def test_a_rank_names_no_backend_that_is_none(
    backend: str, capsys: pytest.CaptureFixture[str], record_refusal: RecordRefusal
) -> None:
    event = events.decode(events.encode(events.JOINED, backend=backend))

    _show(replace(concluded(run()), backend=backend), 30.0)

    shown = " ".join(capsys.readouterr().out.split())
    record_refusal(f"heard as {event}; printed, if it were: {shown[-160:]}")
    assert event is None
    assert f"2 ranks on 2 nodes over {' '.join(backend.split())}" in shown


def test_marks_are_told_from_text() -> None:
    assert events.decode(events.encode("beat", operation=0, round=1)) == {
        "event": "beat",
        "operation": 0,
        "round": 1,
    }
    for text in ("::smoke {", "::smoke []", "beat", '::smoke {"round": 1}'):
        assert events.decode(text) is None


@pytest.mark.parametrize(
    ("value", "text"), [(4, "4 B"), (1024, "1 KiB"), (64 << 20, "64 MiB"), (4_000_000, "4000000 B")]
)
def test_sizes_in_words(value: int, text: str) -> None:
    assert size_text(value) == text


@pytest.mark.parametrize(("value", "text"), [(2e-6, "2 us"), (0.0125, "12.50 ms"), (2.5, "2.50 s")])
def test_times_in_words(value: float, text: str) -> None:
    assert time_text(value) == text
