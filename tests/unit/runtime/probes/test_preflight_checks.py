"""Reasons why a job cannot start, from what the nodes answered."""

from __future__ import annotations

from typing import Any

import pytest

from runtime.job.hostfile import Host
from runtime.probes.preflight_checks import explain_silence, judge
from tests.unit.runtime.launch.jobs import facts, job

FOUR = job(hosts=tuple(Host(name=f"te{i}", slots=1) for i in range(1, 5)))


def four(**odd: dict[str, Any]) -> list[tuple[str, str]]:
    """Check and sentence of each problem among four nodes, te1 as the first one should be, after changes."""
    answers = {
        f"te{i}": facts(
            network=f"net{i}", **{"owns_master": i == 1, "address": f"10.0.0.{i}"} | odd.get(f"te{i}", {})
        )
        for i in range(1, 5)
    }
    return [(problem.check, str(problem)) for problem in judge(FOUR, answers)]


def test_equal_nodes_that_know_the_first_one_may_start() -> None:
    assert four() == []


def test_the_node_with_another_torch_is_named_with_its_rank() -> None:
    assert four(te3={"torch": "2.12.0"}) == [
        (
            "torch",
            "te3 (rank 2): has torch 2.12.0, against 2.13.0 on te1, te2, te4. "
            "Make the nodes equal (ansible-playbook playbooks/site.yml).",
        )
    ]


def test_without_a_majority_every_node_is_named() -> None:
    found = four(te3={"torch": "2.12.0"}, te4={"torch": "2.12.0"})

    assert [sentence.split(" ")[0] for _, sentence in found] == ["te1", "te2", "te3", "te4"]


@pytest.mark.parametrize(
    ("node", "changes", "check", "words"),
    [
        ("te2", {"torch": ""}, "torch", "has no torch"),
        ("te2", {"clusterwright": "0.2.0"}, "clusterwright", "0.2.0"),
        ("te2", {"python": "3.12.1"}, "python", "has Python 3.12, against 3.11"),
        ("te2", {"has_cwd": False, "has_program": False}, "folder", "no folder /data/code"),
        ("te2", {"has_program": False}, "program", "no train.py"),
        ("te2", {"program_digest": "e" * 64}, "program", "another train.py (sha256 eeeeeeeeeeee)"),
        ("te2", {"job_path_problem": "/data is not writable"}, "job folder", "/data is not writable"),
        ("te2", {"master_address": "", "address": ""}, "names", "te1 has no address there"),
        ("te2", {"address": ""}, "route", "no route to te1 (10.0.0.1)"),
        ("te2", {"master_address": "10.9.9.9"}, "names", "resolves te1 to 10.9.9.9, against 10.0.0.1"),
        ("te2", {"owns_master": True}, "names", "an address of te2 itself"),
        ("te1", {"owns_master": False}, "master address", "no address of this node"),
        ("te1", {"master_port": 0}, "master port", "no port is free"),
    ],
)
def test_each_reason_names_its_node(node: str, changes: dict[str, Any], check: str, words: str) -> None:
    found = four(**{node: changes})

    assert [(problem[0], problem[1].split(" ")[0]) for problem in found] == [(check, node)]
    assert words in found[0][1]


def test_problems_of_several_nodes_are_named_at_once() -> None:
    found = four(te1={"master_port": 0}, te2={"torch": "2.12.0"}, te4={"has_program": False})

    assert {(check, sentence.split(" ")[0]) for check, sentence in found} == {
        ("master port", "te1"),
        ("torch", "te2"),
        ("program", "te4"),
    }


def test_two_addresses_of_one_machine_may_rehearse_a_job() -> None:
    rehearsal = job(hosts=(Host(name="127.0.0.1", slots=1), Host(name="127.0.0.2", slots=1)))
    answer = facts(master_address="127.0.0.1", address="127.0.0.1", owns_master=True)

    assert judge(rehearsal, {"127.0.0.1": answer, "127.0.0.2": answer}) == ()


@pytest.mark.parametrize(
    ("status", "errors", "check", "words"),
    [
        (255, ["ssh: connect to host te2 port 22: No route to host"], "ssh", "No route to host"),
        (255, [], "ssh", "no answer in 8 s"),
        (255, ["Host key verification failed."], "host key", "host key was refused"),
        (255, ["root@te2: Permission denied (publickey)."], "ssh", "login was refused"),
        (127, ["bash: line 1: /env/bin/python: No such file or directory"], "python", "no /env/bin/python"),
        (1, ["/env/bin/python: No module named runtime"], "runtime", "lacks clusterwright"),
        (1, ["Traceback ...", "TypeError: boom"], "node", "status 1 (Traceback ... TypeError: boom)"),
        (None, [], "ssh", "no answer in time"),
    ],
)
def test_a_node_that_does_not_answer_is_explained(
    status: int | None, errors: list[str], check: str, words: str
) -> None:
    named, found, fix = explain_silence("te2", "/env/bin/python", status, errors)

    assert named == check
    assert words in found
    assert fix
