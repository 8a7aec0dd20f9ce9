"""A result in Prometheus' text format 0.0.4, for the textfile collector of a node exporter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

_PREFIX = "clusterwright_smoke"
_VERDICTS = ("pass", "fail", "inconclusive")

Sample = tuple[Mapping[str, str], float]


def prometheus(result: Mapping[str, Any]) -> str:
    """The document of smoke.json as gauges; times in seconds, rates in bytes a second."""
    started = datetime.strptime(result["started"], "%Y-%m-%dT%H:%M:%S%z").timestamp()
    families: list[tuple[str, str, Iterable[Sample]]] = [
        ("verdict", "1 for the verdict of the last smoke test", _states({}, result["verdict"], _VERDICTS)),
        ("started_timestamp_seconds", "When the last smoke test began", [({}, started)]),
        ("duration_seconds", "How long it took", [({}, result["seconds"])]),
        ("phase_seconds", "How long its parts took", _phases(result)),
        ("check", "1 for the verdict of a check, the worst where it found several faults", _checks(result)),
        ("pair_connected", "Whether one node reaches another", _pairs(result, "connected")),
        ("pair_bytes_per_second", "What one node delivers to another", _pairs(result, "bytes_per_s")),
        ("pair_round_trip_seconds", "Median round trip of 64 bytes", _pairs(result, "rtt_p50_s")),
        ("operation_bus_bytes_per_second", "Bus bandwidth of a collective", _operations(result)),
    ]
    return "".join(_family(name, help_text, samples) for name, help_text, samples in families)


def _family(name: str, help_text: str, samples: Iterable[Sample]) -> str:
    lines = [f"# HELP {_PREFIX}_{name} {help_text}", f"# TYPE {_PREFIX}_{name} gauge"]
    lines += [f"{_PREFIX}_{name}{_labels(labels)} {float(value)!r}" for labels, value in samples]
    return "\n".join(lines) + "\n"


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _states(labels: Mapping[str, str], state: str, states: Iterable[str]) -> list[Sample]:
    return [({**labels, "verdict": one}, float(one == state)) for one in states]


def _phases(result: Mapping[str, Any]) -> list[Sample]:
    return [({"phase": name}, seconds) for name, seconds in result["phases"].items()]


def _checks(result: Mapping[str, Any]) -> list[Sample]:
    order = ("skipped", "pass", "inconclusive", "fail")
    worst: dict[str, str] = {}
    for check in result["checks"]:
        before = worst.get(check["id"], order[0])
        worst[check["id"]] = max(before, check["verdict"], key=order.index)
    return [sample for name, state in worst.items() for sample in _states({"check": name}, state, order)]


def _pairs(result: Mapping[str, Any], field: str) -> list[Sample]:
    return [
        ({"source": pair["source"], "target": pair["target"]}, pair[field])
        for pair in result["pairs"]
        if pair[field] is not None
    ]


def _operations(result: Mapping[str, Any]) -> list[Sample]:
    return [
        ({"operation": operation["name"]}, operation["busbw_gb_s"] * 1e9)
        for operation in result["operations"]
        if operation["done"] and operation["size"]
    ]
