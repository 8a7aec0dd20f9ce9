"""Fewer processors or less memory than the others have: a part has failed or is withheld."""

from __future__ import annotations

from statistics import median

from runtime.smoke.host.registry import Findings, HostCheck, Nodes, size_text

_LEAST_SHARE = 0.9


def _judge(nodes: Nodes) -> Findings:
    measures = {
        "processors": {host: seen.processors for host, seen in nodes.surveys.items()},
        "bytes of memory": {host: seen.memory_bytes for host, seen in nodes.surveys.items()},
    }
    for words, values in measures.items():
        usual = median(values.values()) if values else 0
        for host, value in values.items():
            if value < _LEAST_SHARE * usual:
                found = f"has {value} {words}, the others {usual:.0f}"
                yield nodes.finding("hardware", host, found, "See `lscpu`, `free -h` and `dmesg` there.")


def _evidence(nodes: Nodes) -> str:
    return f"{nodes.first.processors} processors, {size_text(nodes.first.memory_bytes)} of memory"


CHECK = HostCheck(id="host.hardware", names=("hardware",), place=230, judge=_judge, evidence=_evidence)
