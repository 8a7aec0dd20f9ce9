"""What a node that was taken over answers to the doctor: it is named, and the others are judged."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from provision.diagnose import questions
from provision.diagnose.facts import judge
from provision.model import Machine
from tests.conftest import RecordRefusal

ADDRESSES = {"te1": "10.0.0.1", "te2": "10.0.0.2"}
FACTS = {
    "names": ADDRESSES,
    "own": ["10.0.0.1"],
    "mtu": 1500,
    "open_files": 1 << 20,
    "free": {"/": 50 << 30},
    "versions": {"kernel": "6.1"},
    "job_interface": "",
    "interface": "eth0",
    "certificate": None,
    "clusterwright": "1.0",
}


def asked(monkeypatch: pytest.MonkeyPatch, answers: dict[str, str]) -> questions.Asked:
    def run(machine: Machine, *_: object, on_line: Any, **__: object) -> SimpleNamespace:
        on_line("")
        return SimpleNamespace(stdout=answers[machine.name])

    monkeypatch.setattr(questions.ssh, "run", run)
    machines = [
        Machine(name=name, address=address, user="root", key_files=(Path("k"),), known_hosts=(Path("h"),))
        for name, address in ADDRESSES.items()
    ]
    return questions.ask(machines, lambda _: None)


def said(clock: str = "1.0", **changes: Any) -> str:
    return f"{clock}\n{json.dumps({**FACTS, **changes})}\n"


@pytest.mark.attack("node")
@pytest.mark.parametrize(
    "answer",
    [
        "",
        "1.0\n" + "[" * 200_000,
        "1.0\n[]",
        "1.0\n{}",
        said("nan"),
        said("inf"),
        said(extra=1),
        said(names=5),
        said(names={"te1": 5}),
        said(own=5),
        said(own=[5]),
        said(mtu="\x1b[2J"),
        said(mtu=None),
        said(mtu=True),
        said(open_files="x"),
        said(open_files=1 << 80),
        said(free=[1]),
        said(free={"/": "x"}),
        said(versions=[1]),
        said(versions={"kernel": [1]}),
        said(job_interface=[]),
        said(certificate=[1]),
        said(own=["10.0.0.1\ncause te2: formatted"]),
        said(versions={"kernel\nfix rm": "6.1"}),
        said(clusterwright=[1]),
    ],
)
def test_an_answer_of_other_types_is_none_and_the_other_node_is_judged(
    answer: str, monkeypatch: pytest.MonkeyPatch, record_refusal: RecordRefusal
) -> None:
    found = asked(monkeypatch, {"te1": answer, "te2": said(open_files=16)})

    record_refusal(found.unreachable["te1"])
    assert "it does not answer as asked" in found.unreachable["te1"]
    rows = {(one.row, one.where) for one in judge(found.nodes, unreachable=found.unreachable)}
    assert {("unreachable", "te1"), ("files-open", "te2")} <= rows


def test_what_nodes_say_is_taken_in(monkeypatch: pytest.MonkeyPatch) -> None:
    found = asked(monkeypatch, {"te1": said(), "te2": said(certificate={"nodes": ["te1"]}, mtu=9000)})

    assert found.unreachable == {}
    assert [(node.name, node.mtu, node.certificate) for node in found.nodes] == [
        ("te1", 1500, None),
        ("te2", 9000, {"nodes": ["te1"]}),
    ]
