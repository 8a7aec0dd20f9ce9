"""The last stage: nodes that passed get a certificate, nodes that are named lose theirs.

Where the controller runs the test, only what it signed itself counts before it, and nothing is signed here.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from runtime.gate.certificate import (
    CONTROLLER,
    Certificate,
    Trust,
    new_certificate,
    payload,
    read,
    refusals,
    sealed,
    signer_name,
)
from runtime.gate.signature import sign, signer_of, trust_in
from runtime.probes.preflight_checks import Problem, ranks_of
from runtime.remote.session import Session

_WRITE_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Signing:
    """Who signs the certificates of a test: this node with `key`, or the controller, later.

    `trust` is None, and `refusal` says why, where nothing can be signed.
    """

    signer: str
    key: Path
    trust: Trust | None
    refusal: str = ""


def signing_with(key: Path, signers: Path, *, for_controller: bool) -> Signing:
    """How this node signs.

    Raises:
        BadInput: the key or the list of signers is damaged.
    """
    if not signers.is_file():
        return Signing(signer="", key=key, trust=None, refusal=f"there is no {signers} (role runtime)")
    trust = trust_in(signers)
    if for_controller:
        return Signing(signer=CONTROLLER, key=key, trust=trust)
    if not os.access(key, os.R_OK):
        reason = f"{key} is not there, or only root reads it; provision smoke has the controller sign"
        return Signing(signer="", key=key, trust=trust, refusal=reason)
    signer = signer_of(key, signers)
    reason = "" if signer else f"no node of this cluster has the key {key} (role runtime)"
    return Signing(signer=signer, key=key, trust=trust, refusal=reason)


def draft(
    session: Session, signing: Signing, *, valid_seconds: float, figures: Mapping[str, float | None]
) -> Certificate:
    """What is to be signed of a test that passed."""
    nodes = {node.host.name: len(node.slots) for node in session.job.nodes}
    return new_certificate(
        signer=signing.signer,
        nodes=nodes,
        facts=session.facts[next(iter(nodes))],
        figures=figures,
        now=time.time(),
        valid_seconds=valid_seconds,
    )


def certify(session: Session, made: Certificate, signing: Signing) -> tuple[Problem, ...]:
    """Signs a certificate and writes it to every node of the test.

    Raises:
        BadInput: the key cannot sign.
    """
    return hand_out(session, made, sign(payload(made), signing.key), signing)


def hand_out(session: Session, made: Certificate, signature: str, signing: Signing) -> tuple[Problem, ...]:
    """Writes a signed certificate to its nodes; one keeps its own that is valid and for more nodes."""
    standing = _held(session, signing, made.nodes)
    wanting = [
        host
        for host, one in standing.items()
        if isinstance(one, str) or not one.nodes.keys() > made.nodes.keys()
    ]
    return _put(session, wanting, sealed(made, signature))


def _held(session: Session, signing: Signing, hosts: Collection[str]) -> dict[str, Certificate | str]:
    """What the certificates of these nodes are worth, of those that answered."""
    now, trust, facts = datetime.now(UTC), signing.trust, session.facts
    if trust is None:
        return dict.fromkeys(hosts, signing.refusal)
    held = {host: read(facts[host], now=now, trust=trust) for host in hosts if host in facts}
    if signing.signer != CONTROLLER:
        return held
    return {
        host: one
        if isinstance(one, str) or one.signer == CONTROLLER
        else f"its certificate is signed by {signer_name(one)}, not by the controller"
        for host, one in held.items()
    }


def proven_until(session: Session, signing: Signing) -> str:
    """When the first of the certificates expires with which these nodes might start a job now; else empty."""
    known = _held(session, signing, session.lines)
    if len(known) < len(session.lines) or refusals(session.job, known):
        return ""
    return min(one.expires for one in known.values() if isinstance(one, Certificate))


def carried(session: Session, signing: Signing, hosts: Collection[str]) -> tuple[Certificate, ...]:
    """The certificates with which these nodes are proven together as they are now; none where one is not."""
    known = _held(session, signing, hosts)
    job = replace(session.job, nodes=tuple(node for node in session.job.nodes if node.host.name in hosts))
    if not hosts or len(known) < len(hosts) or refusals(job, known):
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
            fix=f"The user of the test must be able to write into the folder of {path} (role smoke_test).",
        )
        for host, problem in problems.items()
        if problem
    )
