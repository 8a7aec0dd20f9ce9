"""What speaks against relying on a smoke test's certificate."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from runtime.launch.certificate import (
    Certificate,
    new_certificate,
    offer,
    parse,
    payload,
    read,
    refusals,
    sealed,
)
from runtime.launch.hostfile import Host
from tests.unit.runtime.launch.jobs import facts, job

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
NODES = {"te1": 2, "te2": 2, "te3": 2}
THREE = job(hosts=tuple(Host(name=name, slots=slots) for name, slots in NODES.items()))
DIGEST = "e" * 64


def is_signed(signed: bytes, signature: str) -> bool:
    """Stands for the cluster's key: a signature is what was signed, backwards."""
    return signature == signed[::-1].decode()


def issued(nodes: dict[str, int] | None = None, **changes: Any) -> Certificate:
    made = new_certificate(
        nodes=NODES if nodes is None else nodes,
        facts=facts(environment=DIGEST),
        figures={"busbw_gb_s": 0.118},
        now=NOW.timestamp() - 3600,
        valid_seconds=86_400,
    )
    return replace(made, **changes)


def text(certificate: Certificate) -> str:
    return sealed(certificate, payload(certificate)[::-1].decode())


def known(*texts: str, now: datetime = NOW, **held: Any) -> dict[str, Certificate | str]:
    """What each node's certificate is worth; `held` are what te2 is instead of the usual."""
    return {
        name: read(
            facts(certificate=own, **({"environment": DIGEST} | (held if name == "te2" else {}))),
            now=now,
            is_signed=is_signed,
        )
        for name, own in zip(NODES, texts, strict=True)
    }


def test_nodes_that_were_proven_together_may_start() -> None:
    certificates = known(*[text(issued())] * 3)

    assert refusals(THREE, certificates) == ()
    assert offer(THREE, certificates, without=()) == ("te1", "te2", "te3")


def test_fewer_nodes_than_were_proven_may_start() -> None:
    wider = text(issued({**NODES, "te4": 2}))

    assert refusals(THREE, known(wider, wider, wider)) == ()


def altered(change: dict[str, Any]) -> str:
    values = json.loads(text(issued()))
    values["certificate"] |= change
    return json.dumps(values)


@pytest.mark.parametrize(
    ("certificate", "held", "words"),
    [
        ("", {}, "holds no certificate"),
        ("{", {}, "cannot be read"),
        ("[]", {}, "cannot be read"),
        ("{}", {}, "cannot be read"),
        ('{"certificate": {}, "signature": ""}', {}, "cannot be read"),
        (altered({"nodes": {}}), {}, "cannot be read: it names no node"),
        (altered({"expires": "2099-01-01T00:00:00+00:00"}), {}, "was altered"),
        (altered({"environment": "f" * 64}), {}, "was altered"),
        (sealed(issued(), "another key's"), {}, "not signed with this cluster's key"),
        (text(issued(expires="2026-11-21T11:59:59+00:00")), {}, "expired on 2026-11-21T11:59:59+00:00"),
        (text(issued({"te1": 2, "te2": 2})), {}, "is for te1, te2, tested without te3"),
        (text(issued({"te1": 2, "te2": 1, "te3": 2})), {}, "fewer slots of te2 (1)"),
        (
            text(issued()),
            {"environment": "f" * 64},
            "for the environment eeeeeeeeeeee, and it has ffffffffffff",
        ),
        (text(issued()), {"environment": ""}, "and it has none now"),
        (text(issued()), {"torch": "2.14.0"}, "for the torch 2.13.0, and it has 2.14.0 now"),
        (text(issued()), {"clusterwright": "0.2.0 (sources bb)"}, "it has 0.2.0 (sources bb) now"),
    ],
)
def test_a_certificate_that_cannot_be_relied_on_is_refused_with_the_reason(
    certificate: str, held: dict[str, Any], words: str
) -> None:
    good = text(issued())
    certificates = known(good, certificate, good, **held)

    (problem,) = refusals(THREE, certificates)

    assert (problem.check, problem.host, problem.ranks) == ("certificate", "te2", (2, 3))
    assert words in problem.found
    assert offer(THREE, certificates, without=()) == ("te1", "te3")


def test_an_hour_before_its_end_it_holds_and_at_its_end_it_does_not() -> None:
    expires = datetime.fromisoformat(issued().expires)
    texts = [text(issued())] * 3

    assert refusals(THREE, known(*texts, now=expires - timedelta(hours=1))) == ()
    assert len(refusals(THREE, known(*texts, now=expires))) == 3


def test_only_nodes_of_one_and_the_same_test_are_offered_together() -> None:
    pair, alone = issued({"te1": 2, "te3": 2}), issued({"te2": 2})
    certificates = known(text(pair), text(alone), text(pair))

    assert len(refusals(THREE, certificates)) == 3
    assert offer(THREE, certificates, without=()) == ("te1", "te3")
    assert offer(THREE, certificates, without={"te1", "te3"}) == ("te2",)
    assert offer(THREE, certificates, without=set(NODES)) == ()


def test_a_certificate_comes_back_from_its_text() -> None:
    assert parse(text(issued())) == (issued(), payload(issued())[::-1].decode())
