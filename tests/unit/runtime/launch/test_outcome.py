"""Who ended a job first, and the status that the launcher leaves with."""

from __future__ import annotations

from dataclasses import replace

import pytest

from runtime.edges.log_tail import cause_line
from runtime.launch.outcome import (
    NodeEnd,
    Outcome,
    RankEnd,
    exit_status,
    failure_lines,
    first_cause,
    status_text,
)
from tests.unit.runtime.launch.jobs import job

GLOO = "RuntimeError: [pair.cc:537] Read error [127.0.0.1]:18338: Connection reset by peer"


def rank_end(rank: int, status: int, at: float, *tail: str, asked: bool = False) -> RankEnd:
    return RankEnd(
        rank=rank, host="te1" if rank < 2 else "te2", status=status, at_seconds=at, tail=tail, asked=asked
    )


def node_end(host: str, *, ok: bool = True, at: float = 9.0, found: str = "") -> NodeEnd:
    return NodeEnd(host=host, ok=ok, found=found, at_seconds=at, asked=False)


def outcome(*ends: RankEnd, nodes: tuple[NodeEnd, ...] = (), stopped: str = "", status: int = 0) -> Outcome:
    return Outcome(
        hosts_by_rank=("te1", "te1", "te2"),
        ranks={end.rank: end for end in ends},
        nodes={node.host: node for node in nodes or (node_end("te1"), node_end("te2"))},
        stopped=stopped,
        stop_status=status,
    )


def test_a_job_is_well_when_every_rank_said_so() -> None:
    assert exit_status(outcome(*(rank_end(rank, 0, 1.0) for rank in range(3)))) == 0


def test_a_rank_that_said_nothing_is_not_well() -> None:
    silent = outcome(rank_end(0, 0, 1.0), rank_end(1, 0, 1.0))

    assert exit_status(silent) == 1
    assert "never said that they succeeded: rank 2 on te2" in failure_lines(job(), silent)


def test_the_first_cause_is_the_earliest_that_no_other_explains() -> None:
    ended = outcome(
        rank_end(0, 1, 1.0, GLOO), rank_end(1, 1, 1.1, GLOO), rank_end(2, 3, 1.2, "ValueError: boom")
    )

    assert str(first_cause(ended)) == "rank 2 on te2 ended with status 3: ValueError: boom"
    assert exit_status(ended) == 3
    assert "ended because of it: rank 0 on te1, rank 1 on te1" in failure_lines(job(), ended)


def test_among_consequences_the_earliest_is_named() -> None:
    cause = first_cause(outcome(rank_end(0, 1, 1.2, GLOO), rank_end(2, 1, 1.1, GLOO)))

    assert cause is not None
    assert cause.rank == 2


def test_a_rank_killed_by_a_signal_is_the_cause_though_it_said_nothing() -> None:
    ended = outcome(rank_end(0, 1, 1.0, GLOO), rank_end(2, -9, 1.3, "step 5"))

    assert str(first_cause(ended)).startswith("rank 2 on te2 was ended by SIGKILL")
    assert exit_status(ended) == 137


@pytest.mark.parametrize("status", [-64, -127, -128, -384, 126, 255, 256, 512])
def test_no_status_of_a_rank_that_failed_reaches_a_shell_as_success(status: int) -> None:
    assert exit_status(outcome(rank_end(2, status, 1.0))) % 256 != 0


def test_a_node_that_was_lost_explains_the_ranks_that_lost_their_connections() -> None:
    nodes = (node_end("te1"), node_end("te2", ok=False, at=2.0, found="was lost: its control channel ended"))

    cause = first_cause(outcome(rank_end(0, 1, 1.0, GLOO), nodes=nodes))

    assert cause is not None
    assert (cause.host, cause.rank) == ("te2", None)


def test_ranks_that_were_asked_to_end_explain_nothing() -> None:
    ended = outcome(rank_end(0, -15, 1.0, asked=True), stopped="signal 2 reached the launcher", status=130)

    assert first_cause(ended) is None
    assert exit_status(ended) == 130
    assert failure_lines(job(), ended)[0] == "stopped: signal 2 reached the launcher"


@pytest.mark.parametrize(("status", "words"), [(2, "ended with status 2"), (-11, "was ended by SIGSEGV")])
def test_a_status_in_words(status: int, words: str) -> None:
    assert status_text(status) == words


@pytest.mark.parametrize(
    ("lines", "cause"),
    [
        (["Traceback", "  File x", "ValueError: boom", "  warnings.warn(", ""], "ValueError: boom"),
        (["[rank1]: Traceback", "[rank1]: torch.OutOfMemoryError: CUDA"], "torch.OutOfMemoryError: CUDA"),
        (["one", "two", "  "], "two"),
        ([], ""),
    ],
)
def test_the_line_that_says_what_went_wrong(lines: list[str], cause: str) -> None:
    assert cause_line(lines) == cause


def test_a_stopped_rank_is_named_while_those_that_waited_are_still_on_their_way_out() -> None:
    known = replace(
        outcome(rank_end(0, 1, 1.0, GLOO)),
        standing={1: "T"},
        failing=frozenset({0, 2}),
    )

    assert str(first_cause(known)) == (
        "rank 1 on te1 is stopped (SIGSTOP or a debugger), while ranks 0, 2 waited for it in vain"
    )
