from __future__ import annotations

from pathlib import Path

import pytest

from provision.lab.fault.catalogue import CATALOGUE, fault_called
from provision.lab.fault.drill import Case, Outcome, cases, judge, several
from provision.lab.layout import lay_out
from provision.smoke.result import Finding, SmokeResult

NODES = lay_out(name="lab", subnet="10.77.0.0/24", count=4, disk_bytes=1 << 30, base=Path("/b")).nodes


def struck(name: str) -> Case:
    return cases([fault_called(name)], NODES)[0]


def result(verdict: str, *findings: tuple[str, str], conclusive: bool = True) -> SmokeResult:
    found = tuple(
        Finding(check="x", hosts=tuple(hosts.split()), found=words, fix="", conclusive=conclusive)
        for hosts, words in findings
    )
    return SmokeResult(verdict=verdict, seconds=1, findings=found, document={})


@pytest.mark.parametrize(
    ("name", "told", "outcome"),
    [
        ("link-down", result("fail", ("te2", "unreachable")), Outcome.named),
        ("link-down", result("fail", ("te2", "has torch 2.5.0")), Outcome.cause_not_said),
        ("link-down", result("fail", ("te2", "unreachable"), ("te3", "slow")), Outcome.others_blamed),
        ("link-down", result("pass"), Outcome.not_seen),
        ("link-down", None, Outcome.no_result),
        (
            "link-down",
            result("inconclusive", ("te1 te2 te3", "no rank is behind"), conclusive=False),
            Outcome.inconclusive,
        ),
        ("slow-send", result("fail", ("te2", "te2 transmit: 6 MB/s against 900")), Outcome.named),
        ("slow-send", result("fail", ("te2", "te2 receive: 6 MB/s against 900")), Outcome.cause_not_said),
        (
            "firewall-peer",
            result("fail", ("te2", "cannot reach te3"), ("te3", "cannot reach te2")),
            Outcome.named,
        ),
        ("firewall-peer", result("fail", ("te2", "te1, te3, te4 cannot reach it")), Outcome.others_blamed),
        ("rank-killed", result("fail", ("te2", "rank 1 on te2 was ended by SIGKILL")), Outcome.named),
    ],
)
def test_only_those_at_fault_with_the_cause_count_as_named(
    name: str, told: SmokeResult | None, outcome: Outcome
) -> None:
    assert judge(struck(name), told) is outcome


TWO_LINKS = several(NODES)[0]
SLOW_AND_WRONG = several(NODES)[2]


@pytest.mark.parametrize(
    ("case", "told", "outcome"),
    [
        (
            TWO_LINKS,
            result("fail", ("te2 te3", "te2 <-> te3 20 MB/s"), ("te1 te4", "te1 <-> te4 20 MB/s")),
            Outcome.named,
        ),
        (TWO_LINKS, result("fail", ("te2 te3", "te2 <-> te3 20 MB/s")), Outcome.in_part),
        (TWO_LINKS, result("fail", ("te1", "te1 transmit 20 MB/s")), Outcome.in_part),
        (
            SLOW_AND_WRONG,
            result("fail", ("te4", "unreachable"), ("te3", "te3 receive")),
            Outcome.others_blamed,
        ),
        (
            SLOW_AND_WRONG,
            result("fail", ("te1 te4", "te1 -> te4 20 MB/s"), ("te2", "names: resolves te3 to 10.0.0.1")),
            Outcome.named,
        ),
    ],
)
def test_of_several_faults_each_must_be_named_by_itself(
    case: Case, told: SmokeResult, outcome: Outcome
) -> None:
    assert judge(case, told) is outcome


def test_an_injection_says_whom_it_expects() -> None:
    assert struck("slow-send")[0].expected == "te2 transmit"
    assert struck("firewall-peer")[0].expected == "te2 <-> te3"
    assert struck("slow-direction")[0].expected == "te3 -> te2"
    assert struck("ports-taken")[0].expected == "te1"
    assert struck("rank-stopped")[0].expected == "the rank on te2"
    assert struck("wrong-hosts")[0].expected == "te2"


def test_every_fault_has_its_case() -> None:
    assert len(cases(list(CATALOGUE.values()), NODES)) == len(CATALOGUE)
