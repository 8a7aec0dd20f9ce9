"""What is known of each node of a site: from its own answer, and from what earlier runs left. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from provision.diagnose.facts import NodeFacts
from provision.nodes.node_record import Failure, Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """The certificate that a node holds: times in ISO 8601, its signer, the nodes tested together."""

    issued: str
    expires: str
    nodes: tuple[str, ...]
    expired: bool
    signer: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus:
    """One node: `unreachable` says why it does not answer, "" where it does."""

    name: str
    address: str
    unreachable: str
    drained: bool
    pending_since: str
    versions: Mapping[str, str]
    digest: str
    proof: Proof | None
    last_good_run: str
    last_failure: Failure | None


def status_of(
    addresses: Mapping[str, str],
    answers: Sequence[NodeFacts],
    *,
    unreachable: Mapping[str, str],
    drained: Collection[str],
    records: Mapping[str, Record],
    now: datetime,
) -> list[NodeStatus]:
    """Every node of `addresses` (by name, in order), whether it answered or not."""
    known = {facts.name: facts for facts in answers}
    found = []
    for name, address in addresses.items():
        facts, record = known.get(name), records.get(name, Record())
        versions = dict(facts.versions) if facts else {}
        digest = versions.pop("environment digest", "")
        if facts:
            versions["clusterwright"] = facts.clusterwright
        found.append(
            NodeStatus(
                name=name,
                address=address,
                unreachable=unreachable.get(name, ""),
                drained=name in drained,
                pending_since=record.pending_since,
                versions=versions,
                digest=digest,
                proof=_proof(facts.certificate, now) if facts else None,
                last_good_run=record.ok,
                last_failure=record.failure,
            )
        )
    return found


def _proof(certificate: Mapping[str, Any] | None, now: datetime) -> Proof | None:
    """Whether its signature holds is zerorun's to say; one that was altered may be anything."""
    if certificate is None:
        return None
    try:
        return Proof(
            issued=str(certificate["issued"]),
            expires=str(certificate["expires"]),
            nodes=tuple(map(str, certificate["nodes"])),
            signer=str(certificate.get("signer", "")).lstrip("@"),
            expired=now >= datetime.fromisoformat(certificate["expires"]),
        )
    except (KeyError, TypeError, ValueError, RecursionError):
        return None


def is_well(node: NodeStatus) -> bool:
    """Whether a job could start there."""
    return (
        not node.unreachable and not node.pending_since and node.proof is not None and not node.proof.expired
    )
