"""What speaks against relying on a smoke test's certificate."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from runtime.gate.certificate import (
    CONTROLLER,
    Certificate,
    Trust,
    new_certificate,
    offer,
    parse,
    payload,
    proven_by,
    read,
    refusals,
    sealed,
)
from runtime.job.hostfile import Host
from tests.unit.runtime.launch.jobs import facts, job

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
NODES = {"te1": 2, "te2": 2, "te3": 2}
THREE = job(hosts=tuple(Host(name=name, slots=slots) for name, slots in NODES.items()))
DIGEST = "e" * 64


def is_signed(signed: bytes, signature: str, signer: str) -> bool:
    """Stands for everybody's keys: a signature is the signer's name, and what was signed, backwards."""
    return signature == f"{signer} {signed[::-1].decode()}"


TRUST = Trust(nodes=frozenset([*NODES, "te4"]), is_signed=is_signed)


def issued(nodes: dict[str, int] | None = None, **changes: Any) -> Certificate:
    made = new_certificate(
        signer=CONTROLLER,
        nodes=NODES if nodes is None else nodes,
        facts=facts(environment=DIGEST),
        figures={"busbw_gb_s": 0.118},
        now=NOW.timestamp() - 3600,
        valid_seconds=86_400,
    )
    return replace(made, **changes)


def text(certificate: Certificate, signer: str = "") -> str:
    """Signed by whom it names, or by another."""
    return sealed(certificate, f"{signer or certificate.signer} {payload(certificate)[::-1].decode()}")


def as_before() -> str:
    """What the version before this one wrote: the same, but for a signer."""
    values = json.loads(text(issued()))
    del values["certificate"]["signer"]
    return json.dumps(values)


def known(*texts: str, now: datetime = NOW, **held: Any) -> dict[str, Certificate | str]:
    """What each node's certificate is worth; `held` are what te2 is instead of the usual."""
    return {
        name: read(
            facts(certificate=own, **({"environment": DIGEST} | (held if name == "te2" else {}))),
            now=now,
            trust=TRUST,
        )
        for name, own in zip(NODES, texts, strict=True)
    }


def test_what_changed_in_an_environment_is_not_covered_and_how_to_go_on_is_said() -> None:
    held = known(*[text(issued())] * 3, environment="f" * 64, changed="six 1.17.0 was installed")

    (refused,) = refusals(THREE, held, altered={"te2"})

    assert (refused.host, refused.check) == ("te2", "certificate")
    words = "its environment was changed since, which its certificate does not cover: six 1.17.0"
    assert words in str(refused)
    assert "`provision env verify` names all of it and site.yml builds it anew" in refused.fix
    assert "--no-gate" in refused.fix


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
        ("[" * 100_000, {}, "cannot be read: it is nested too deep"),
        (altered({"signer": 5}), {}, "cannot be read"),
        (altered({"signer": []}), {}, "cannot be read"),
        (altered({"nodes": {"te1": float("inf")}}), {}, "cannot be read"),
        (altered({"nodes": {"te1": "4"}}), {}, "cannot be read"),
        (altered({"torch": 5}), {}, "cannot be read"),
        (
            altered({"nodes": {f"te{number}\n" * 500: 1 for number in range(50)}}),
            {},
            "no node of this cluster",
        ),
        (altered({"nodes": {}}), {}, "cannot be read: it names no node"),
        (altered({"expires": "2099-01-01T00:00:00+00:00"}), {}, "was altered"),
        (altered({"environment": "f" * 64}), {}, "was altered"),
        (sealed(issued(), "another key's"), {}, "not signed by the controller"),
        (as_before(), {}, "an earlier version signed it, with the cluster's key, which every node has"),
        (text(issued(signer="te1"), signer="te3"), {}, "not signed by te1, or was altered since"),
        (text(issued(), signer="te3"), {}, "not signed by the controller, or was altered since"),
        (text(issued(signer="te9")), {}, "is of a test with te9, no node of this cluster (any more)"),
        (text(issued({**NODES, "te5": 2})), {}, "is of a test with te5, no node of this cluster (any more)"),
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
    signature = f"{CONTROLLER} {payload(issued())[::-1].decode()}"

    assert parse(text(issued())) == (issued(), signature)


def test_who_proved_the_nodes_is_said() -> None:
    by_node = text(issued(signer="te1"))

    assert proven_by(known(*[text(issued())] * 3).values()) == "by the controller"
    assert proven_by(known(*[by_node] * 3).values()) == "by te1"
    assert refusals(THREE, known(*[by_node] * 3)) == ()
