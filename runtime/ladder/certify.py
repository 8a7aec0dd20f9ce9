"""The last rung: nodes that passed get a certificate, nodes that are named lose theirs."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from runtime.launch.certificate import Certificate, new_certificate, payload, read, refusals, sealed
from runtime.launch.judge import Problem, ranks_of
from runtime.launch.session import Session
from runtime.launch.signature import sign, verifier

_WRITE_SECONDS = 10.0


def certify(
    session: Session, *, key: Path, valid_seconds: float, figures: Mapping[str, float | None]
) -> tuple[Certificate, tuple[Problem, ...]]:
    """Writes a certificate to every node of the test; a node keeps one that is valid and for more nodes.

    Raises:
        BadInput: the key cannot sign.
    """
    nodes = {node.host.name: len(node.slots) for node in session.job.nodes}
    now, is_signed = datetime.now(UTC), verifier(key)
    facts = session.facts
    made = new_certificate(
        nodes=nodes,
        facts=facts[next(iter(nodes))],
        figures=figures,
        now=time.time(),
        valid_seconds=valid_seconds,
    )
    standing = {host: read(facts[host], now=now, is_signed=is_signed) for host in nodes}
    wanting = [
        host
        for host, one in standing.items()
        if isinstance(one, str) or not one.nodes.keys() > made.nodes.keys()
    ]
    return made, _put(session, wanting, sealed(made, sign(payload(made), key)))


def proven_until(session: Session, key: Path) -> str:
    """When the first of the certificates expires with which these nodes might start a job now; else empty."""
    now, is_signed = datetime.now(UTC), verifier(key)
    known = {host: read(facts, now=now, is_signed=is_signed) for host, facts in session.facts.items()}
    if len(known) < len(session.lines) or refusals(session.job, known):
        return ""
    return min(one.expires for one in known.values() if isinstance(one, Certificate))


def carried(session: Session, key: Path, hosts: Collection[str]) -> tuple[Certificate, ...]:
    """The certificates with which these nodes are proven together as they are now; none where one is not."""
    if not hosts or not key.is_file():
        return ()
    now, is_signed = datetime.now(UTC), verifier(key)
    facts = session.facts
    known = {host: read(facts[host], now=now, is_signed=is_signed) for host in hosts if host in facts}
    job = replace(session.job, nodes=tuple(node for node in session.job.nodes if node.host.name in hosts))
    if len(known) < len(hosts) or refusals(job, known):
        return ()
    return tuple(one for one in known.values() if isinstance(one, Certificate))


def seconds_left(certificates: Sequence[Certificate], now: datetime) -> float:
    """Until the first of them expires; endless for none."""
    ends = [datetime.fromisoformat(one.expires) for one in certificates]
    return min(((end - now).total_seconds() for end in ends), default=float("inf"))


def revoke(session: Session, hosts: Collection[str]) -> tuple[Problem, ...]:
    """Takes the certificates of these nodes away, where they can still be reached."""
    return _put(session, [host for host in hosts if session.facts.get(host)], "")


def _put(session: Session, hosts: Collection[str], text: str) -> tuple[Problem, ...]:
    path = session.job.certificate_path
    session.broadcast("certify", hosts=hosts, path=path, text=text)
    answers = session.gather("certified", _WRITE_SECONDS, hosts=hosts)
    held = ranks_of(session.job)
    problems = {host: answers[host]["problem"] if host in answers else "no answer" for host in hosts}
    return tuple(
        Problem(
            check="certificate",
            host=host,
            ranks=held[host],
            found=f"its certificate was not {'written' if text else 'removed'}: {problem}",
            fix=f"The folder of {path} must belong to the user that runs the test (role smoke_test).",
        )
        for host, problem in problems.items()
        if problem
    )
