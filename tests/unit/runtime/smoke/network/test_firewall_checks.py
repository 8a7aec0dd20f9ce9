"""Whether strangers are kept from the ports of jobs, judged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runtime.probes.job_firewall import Fence, Intrusion, intrude, look, parse
from runtime.probes.reachability import Listener
from runtime.smoke.checks import CATALOGUE
from runtime.smoke.network.firewall_checks import IDENTITY, evidence, judge_fences, not_applicable

ADDRESSES = {"te1": "10.0.0.1", "te2": "10.0.0.2"}
RANKS = {"te1": (0,), "te2": (1,)}
NODES = ("10.0.0.1", "10.0.0.2", "10.0.0.3")
GOOD = Fence(wanted=True, nodes=NODES, members=NODES)
REFUSED = Intrusion(refused=("10.0.0.1:40000",))


def said(te2: Fence = GOOD, tried: Intrusion = REFUSED) -> list[str]:
    found = judge_fences({"te1": GOOD, "te2": te2}, {"te1": REFUSED, "te2": tried}, ADDRESSES, RANKS)
    return [one.found for one in found]


def test_a_fence_that_holds_is_evidence() -> None:
    fences, tried = {"te1": GOOD, "te2": GOOD}, {"te1": REFUSED, "te2": REFUSED}

    assert said() == []
    assert not_applicable(fences, tried) == {}
    assert evidence(fences, tried) == {
        IDENTITY: "each admits 3 addresses as nodes; a user without rights was refused 2 times"
    }
    assert IDENTITY in CATALOGUE


@pytest.mark.parametrize(
    ("te2", "tried", "words"),
    [
        (Fence(), REFUSED, "it has no firewall around the ports of jobs, as others have"),
        (
            GOOD,
            Intrusion(reached=("10.0.0.2:40000",)),
            "a user without rights there connects to 10.0.0.2",
        ),
        (
            Fence(wanted=True, problem="no table", members=NODES),
            REFUSED,
            "does not hold: no table",
        ),
        (Fence(wanted=True, nodes=(*NODES, "10.0.0.66"), members=NODES), REFUSED, "10.0.0.66 is none"),
        (Fence(wanted=True, nodes=NODES[:1], members=NODES), REFUSED, "10.0.0.2, 10.0.0.3 is missing"),
    ],
)
def test_a_fence_with_a_hole_names_its_node(te2: Fence, tried: Intrusion, words: str) -> None:
    (found,) = said(te2, tried)

    assert found.startswith("te2 (rank 1): ")
    assert words in found


def test_without_the_role_on_any_node_it_is_skipped_with_the_reason() -> None:
    fences = {"te1": Fence(), "te2": Fence()}

    assert list(judge_fences(fences, {}, ADDRESSES, RANKS)) == []
    assert evidence(fences, {}) == {}
    assert not_applicable(fences, {}) == {IDENTITY: "no firewall on any node (role job_firewall)"}


def test_what_was_not_tried_everywhere_is_skipped_and_never_passed() -> None:
    fences = {"te1": GOOD, "te2": GOOD}

    assert "te2 did not answer" in not_applicable(fences, {"te1": REFUSED})[IDENTITY]
    assert (
        "not root"
        in not_applicable(fences, {"te1": REFUSED, "te2": Intrusion(left_out="not root")})[IDENTITY]
    )


def test_a_port_without_a_firewall_is_reached_and_one_that_we_do_not_reach_says_nothing() -> None:
    listener = Listener("127.0.0.1", token="t")

    found = intrude("127.0.0.1", [("127.0.0.1", listener.port)])
    listener.close()

    assert found == Intrusion(reached=(f"127.0.0.1:{listener.port}",))
    assert intrude("127.0.0.1", [("127.0.0.1", listener.port)]).left_out == "no port could be reached at all"


def test_what_is_live_is_read_with_the_chains_that_judge_nothing() -> None:
    listed = {
        "nftables": [
            {"set": {"name": "nodes", "elem": ["10.0.0.2", "10.0.0.1"]}},
            {"chain": {"name": "input", "hook": "input"}},
            {"chain": {"name": "output", "hook": "output"}},
            {"rule": {"chain": "input"}},
        ]
    }

    assert parse(json.dumps(listed)) == (
        ("10.0.0.1", "10.0.0.2"),
        "its chains forward, output judge nothing",
    )


def test_a_node_that_the_role_has_not_touched_wants_none(tmp_path: Path) -> None:
    assert look(tmp_path, rules=tmp_path / "no") == Fence()
