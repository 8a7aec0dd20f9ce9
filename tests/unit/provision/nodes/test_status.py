"""A node's status, from its answer and from what is remembered of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from provision.diagnose.facts import NodeFacts
from provision.nodes.node_record import NodeStatus, Record, is_well, status_of

CERTIFICATE = {
    "issued": "2026-01-01T00:00:00+00:00",
    "expires": "2026-01-08T00:00:00+00:00",
    "nodes": {"te1": 1},
}


def node(
    certificate: Any = CERTIFICATE, *, day: int = 2, pending: str = "", answers: bool = True
) -> NodeStatus:
    facts = NodeFacts(
        name="te1",
        address="10.0.0.1",
        names={},
        own=[],
        mtu=1500,
        open_files=1,
        free={},
        skew_seconds=0,
        skew_within_seconds=0,
        versions={"kernel": "6.1", "environment digest": "abc"},
        job_interface="",
        interface="",
        certificate=certificate,
        clusterwright="0.1.0",
    )
    (found,) = status_of(
        {"te1": "10.0.0.1"},
        [facts] if answers else [],
        unreachable={} if answers else {"te1": "timed out"},
        drained=[],
        records={"te1": Record(pending_since=pending)},
        now=datetime(2026, 1, day, tzinfo=UTC),
    )
    return found


def test_a_node_that_is_proven_is_well() -> None:
    found = node()

    assert is_well(found)
    assert found.digest == "abc"
    assert found.versions == {"kernel": "6.1", "clusterwright": "0.1.0"}
    assert found.proof is not None
    assert found.proof.nodes == ("te1",)


@pytest.mark.parametrize("certificate", [None, {}, {"nodes": 1}, {**CERTIFICATE, "expires": "soon"}])
def test_what_is_no_certificate_proves_nothing(certificate: Any) -> None:
    assert node(certificate).proof is None
    assert not is_well(node(certificate))


def test_the_nodes_of_a_certificate_are_shown_as_words_whatever_they_are() -> None:
    found = node({**CERTIFICATE, "nodes": [1, ["te1"]]})

    assert found.proof is not None
    assert found.proof.nodes == ("1", "['te1']")


def test_a_node_that_is_expired_pending_or_silent_is_not_well() -> None:
    silent = node(answers=False)

    assert not is_well(node(day=9))
    assert not is_well(node(pending="2026-01-01"))
    assert not is_well(silent)
    assert (silent.unreachable, silent.versions, silent.proof) == ("timed out", {}, None)
