"""What is remembered of each node between runs: last failure, last good run, what it still misses. Pure."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

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
