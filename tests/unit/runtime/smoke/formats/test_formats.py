"""One result in three formats, each read back by the reader that people use."""

from __future__ import annotations

import json
import math
from html.parser import HTMLParser
from typing import Any

import pytest
from junitparser import Error, Failure, JUnitXml, Skipped
from prometheus_client.parser import text_string_to_metric_families

from runtime.probes.finding import Finding
from runtime.smoke.checks import checks
from runtime.smoke.collectives import events
from runtime.smoke.collectives.plan import operations
from runtime.smoke.collectives.progress import Progress
from runtime.smoke.formats.junit import junit
from runtime.smoke.formats.page import page
from runtime.smoke.formats.prometheus import prometheus
from runtime.smoke.report import conclude, to_json

HOSTILE = 'a "quoted" <b>&amp;</b> \\ back\nsecond line \x07'
PAIR = {
    "source": "te1",
    "target": "te2",
    "connected": True,
    "rtt_p50_s": 1e-4,
    "rtt_p99_s": 2e-4,
    "bytes_per_s": 2.5e7,
    "retransmits": 0,
    "path_mtu": 1500,
    "error": "",
}
BACK = {**PAIR, "source": "te2", "target": "te1", "bytes_per_s": 1e9}
DEAD = {
    **PAIR,
    "target": "te3",
    "connected": False,
    "rtt_p50_s": None,
    "rtt_p99_s": None,
    "bytes_per_s": None,
}


def finding(check: str, *, conclusive: bool = True) -> Finding:
    return Finding(
        check=check,
        hosts=("te1",),
        ranks=(0,),
        found=HOSTILE,
        fix="see `x`",
        conclusive=conclusive,
        where="te1 <x>",
    )


def result(*findings: Finding) -> dict[str, Any]:
    """What smoke.json holds: two ranks that did everything, three pairs, findings."""
    progress = Progress(("te1", "te2"), operations(2, [4, 1024, 65536]))
    for event in (events.STARTED, events.IMPORTED, events.JOINED):
        for rank in range(2):
            progress.hear(rank, {"event": event}, 0.0)
    for operation in progress.plan:
        for rank in range(2):
            progress.hear(rank, {"event": "begin", "operation": operation.number}, 1.0)
            done = {"operation": operation.number, "seconds": [0.001], "wrong": None}
            progress.hear(rank, {"event": "done", **done}, 1.0)
    report = conclude(
        progress,
        findings=findings,
        nodes=[{"name": "te1"}, {"name": "te2"}],
        started="2026-11-21T12:00:00+0000",
        phases={"nodes": 1.0, "sockets": 2.5},
        pairs=[PAIR, BACK, DEAD],
    )
    values: dict[str, Any] = json.loads(to_json(report))
    done, skipped = {"host.torch": "torch 2"}, {"host.clock": "not asked"}
    made = checks(findings, done=done, skipped=skipped)
    names = ("id", "verdict", "where", "evidence", "fix")
    return values | {"checks": [{name: getattr(check, name) for name in names} for check in made]}


def test_junit_counts_what_it_holds_and_survives_hostile_text() -> None:
    text = junit(result(finding("mtu"), finding("bandwidth", conclusive=False)))
    (suite,) = JUnitXml.fromstring(text.encode())

    cases = list(suite)
    assert suite.tests == len(cases)
    ends = [one for case in cases for one in case.result]
    for counted, kind in ((suite.failures, Failure), (suite.errors, Error), (suite.skipped, Skipped)):
        assert counted == sum(isinstance(one, kind) for one in ends), kind
    (failure,) = (one for one in ends if isinstance(one, Failure))
    assert failure.message == HOSTILE.replace("\x07", "?")
    assert (failure.type, failure.text) == ("host.mtu", "see `x`")
    named = {(case.classname, case.name) for case in cases}
    assert {("smoke.host", "mtu (te1 <x>)"), ("smoke.sockets", "bandwidth (te1 <x>)")} <= named
    assert len(named) == len(cases)


def parse(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Samples as Prometheus' own library reads them; all are gauges, and each comes once."""
    families = list(text_string_to_metric_families(text))
    assert {family.type for family in families} == {"gauge"}
    assert len({family.name for family in families}) == len(families), "a family comes once, in one piece"
    samples = [sample for family in families for sample in family.samples]
    found = {(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples}
    assert len(found) == len(samples), "a sample comes once"
    return found


def test_prometheus_holds_verdict_checks_pairs_and_operations() -> None:
    samples = parse(prometheus(result(finding("mtu"))))

    def value(name: str, **labels: str) -> float:
        return samples[f"clusterwright_smoke_{name}", frozenset(labels.items())]

    assert [value("verdict", verdict=one) for one in ("pass", "fail", "inconclusive")] == [0, 1, 0]
    assert value("check", check="host.mtu", verdict="fail") == 1
    assert value("check", check="host.torch", verdict="pass") == 1
    assert value("check", check="host.clock", verdict="skipped") == 1
    assert value("pair_bytes_per_second", source="te1", target="te2") == 2.5e7
    assert value("pair_connected", source="te1", target="te3") == 0
    assert (
        "clusterwright_smoke_pair_bytes_per_second",
        frozenset({("source", "te1"), ("target", "te3")}),
    ) not in samples
    assert value("started_timestamp_seconds") == 1795262400
    assert value("phase_seconds", phase="sockets") == 2.5
    assert value("operation_bus_bytes_per_second", operation="all-reduce of 64 KiB") == pytest.approx(
        65536 / 0.001
    )
    assert all(math.isfinite(number) for number in samples.values())


def test_prometheus_escapes_what_a_label_may_hold() -> None:
    hostile = {**PAIR, "target": 'te"2\\\n'}

    samples = parse(prometheus({**result(), "pairs": [hostile]}))

    wanted = frozenset({("source", "te1"), ("target", hostile["target"])})
    assert ("clusterwright_smoke_pair_connected", wanted) in samples


class Reader(HTMLParser):
    """Checks that every element is closed in its order, and keeps text and addresses."""

    VOID = ("meta",)

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert not {name for name, _ in attrs} & {"src", "href", "onload", "onclick"}
        self.seen.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_page_loads_nothing_and_shows_verdicts_before_matrices() -> None:
    text = page(result(finding("mtu")))
    reader = Reader()
    reader.feed(text)

    assert reader.open == []
    assert not {"script", "link", "img", "iframe", "b"} & set(reader.seen)
    assert "url(" not in text
    assert "http" not in text
    assert text.index(">fail</span>") < text.index("host.mtu") < text.index("Delivered") < text.index("<svg")
    assert {"25", "1000", "none"} <= set(reader.words)
    assert HOSTILE.replace("\x07", "") in "".join(reader.words).replace("\x07", "")
    assert reader.seen.count("circle") == 3


def test_a_page_without_pairs_or_collectives_still_shows_the_checks() -> None:
    text = page({**result(finding("ssh")), "pairs": [], "operations": []})

    assert "host.answers" in text
    assert "<svg" not in text
    assert "Delivered" not in text
