"""What is remembered of each node between runs: last failure, last good run, what it still misses. Pure."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

from provision.diagnose.facts import NodeFacts

Records = Mapping[str, "Record"]
_MOST_TEXT = 4000


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A task that failed on a node: when, in which playbook, role and task, and what it said last."""

    when: str
    playbook: str
    role: str
    task: str
    said: str

    @property
    def step(self) -> str:
        """Role and task, as a person looks for them."""
        return f"{self.role}: {self.task}" if self.role else self.task


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One node's: times in ISO 8601. `pending_since`: it has not been told of the cluster's last change."""

    ok: str = ""
    playbook: str = ""
    failure: Failure | None = None
    pending_since: str = ""


def parse(text: str) -> dict[str, Record]:
    """The records by node; nothing from a text that is none."""
    try:
        return {name: _record(values) for name, values in json.loads(text or "{}").items()}
    except (ValueError, TypeError, AttributeError):
        return {}


def _record(values: Mapping[str, Any]) -> Record:
    failure = values.get("failure")
    return Record(**{**values, "failure": Failure(**failure) if failure else None})


def render(records: Records) -> str:
    return json.dumps({name: asdict(record) for name, record in sorted(records.items())}, indent=1) + "\n"


def failed(records: Records, node: str, failure: Failure) -> dict[str, Record]:
    """With a node's failure, which stands until the next one."""
    return {**records, node: replace(records.get(node, Record()), failure=failure)}


def ran(
    records: Records, *, playbook: str, tells: bool, good: Collection[str], bad: Collection[str], now: str
) -> dict[str, Record]:
    """After a playbook ended.

    Args:
        tells: whether it tells nodes everything that they have to know of each other; those who missed it are
            pending until they meet such a run again.
    """
    found = dict(records)
    for node in good:
        old = found.get(node, Record())
        found[node] = replace(
            old, ok=now, playbook=playbook, pending_since="" if tells else old.pending_since
        )
    for node in bad if tells else ():
        old = found.get(node, Record())
        found[node] = replace(old, pending_since=old.pending_since or now)
    return found


def pending(records: Records, nodes: Collection[str]) -> list[str]:
    """Those of the nodes that still miss the cluster's last change."""
    return [node for node in nodes if node in records and records[node].pending_since]


def said(result: Mapping[str, Any]) -> str:
    """What a failed task said: its standard error, else its message; the end of it."""
    for name in ("stderr", "msg", "stdout", "censored"):
        if text := str(result.get(name) or "").strip():
            lines = text.splitlines()[-20:]
            return "\n".join(lines)[-_MOST_TEXT:]
    return "nothing"


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
