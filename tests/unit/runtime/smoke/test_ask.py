"""A processor is slow when it stays slow for seconds; what no probe gives ends the asking of its node."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from runtime.job.hostfile import Host
from runtime.launch.preflight import greet
from runtime.remote.session import open_session
from runtime.smoke.ask import ask, lasting
from runtime.smoke.network.matrix import slow_nodes
from tests.conftest import RecordRefusal
from tests.unit.runtime.launch.jobs import facts, job
from tests.unit.runtime.launch.test_strangers import node_that_says
from tests.unit.runtime.smoke.host.cluster import healthy

QUIET = {"te1": 1e9, "te2": 1.01e9, "te3": 0.99e9, "te4": 1e9}


def measured(busy_seconds: float) -> tuple[dict[str, float], float]:
    """The rates of a cluster whose te2 is busy for so long, and how long it was asked."""
    now = 0.0

    def pause(seconds: float) -> None:
        nonlocal now
        now += seconds

    def rate(host: str) -> float:
        return QUIET[host] / (3 if host == "te2" and now < busy_seconds else 1)

    first = {host: rate(host) for host in QUIET}
    return lasting(first, slow=slow_nodes, rate=float, again=rate, pause=pause), now


@pytest.mark.parametrize(("burst", "asked"), [(1.5, 1.5), (6.0, 7.5)])
def test_a_burst_of_seconds_accuses_nobody(burst: float, asked: float) -> None:
    rates, seconds = measured(burst)

    assert (slow_nodes(rates), seconds) == (frozenset(), asked)


def test_a_processor_that_stays_slow_is_found() -> None:
    rates, _ = measured(1e9)

    assert slow_nodes(rates) == {"te2"}


def test_a_healthy_cluster_does_not_wait() -> None:
    assert measured(0.0) == (QUIET, 0.0)


ANSWERS = """
for line in sys.stdin:
    for question, answer in ANSWERS.items():
        if question in line:
            out.write(answer.encode())
            out.flush()
"""


def frame(**values: object) -> str:
    return f"\x1e{json.dumps(values)}\n"


@pytest.mark.attack("node")
def test_a_node_whose_probe_gives_another_type_is_named_and_asked_no_more(
    tmp_path: Path, record_refusal: RecordRefusal
) -> None:
    survey = replace(
        healthy("te1"), addresses_by_name={"127.0.0.1": ""}, probed={"host.swap": {"total": "x"}}
    )
    said = {
        '"hello"': frame(kind="facts", facts=asdict(facts())),
        '"survey"': frame(kind="surveyed", survey=asdict(survey)),
    }
    python = node_that_says(tmp_path, f"ANSWERS = {said!r}{ANSWERS}")
    with open_session(job(hosts=(Host(name="127.0.0.1", slots=1),), python=python)) as session:
        greet(session)
        session.hear(20)
        nodes = ask(session)
        fault = session.lines["127.0.0.1"].fault

    record_refusal(fault)
    assert "sent what no node of ours sends: host.swap lacks or should not have 'used'" in fault
    assert (nodes.surveys, nodes.compute) == ({}, {})
