"""Processors that their governor holds at a low clock, or scales otherwise than the others' does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from runtime.smoke.host.registry import Findings, HostCheck, Nodes
from runtime.untrusted.conform import AT_LEAST_0

_ID = "host.cpu-governor"
_POLICIES = Path("/sys/devices/system/cpu/cpufreq")
# Drivers in active mode, under whose `powersave` processors choose their clocks by themselves; under any
# other they keep the lowest (kernel, admin-guide/pm: intel_pstate, amd-pstate, cpufreq).
_ACTIVE_DRIVERS = ("intel-pstate", "amd-pstate-epp")
_FIX = "Run `cpupower frequency-set -g performance` there, and have it run at each boot."


@dataclass(frozen=True, slots=True, kw_only=True)
class Governors:
    """What scales the clocks of a node, "" for nothing, and how many of them each governor has."""

    driver: str
    governors: Mapping[str, Annotated[int, AT_LEAST_0]]


def look(policies: Path) -> Governors:
    """As cpufreq shows them (kernel, admin-guide/pm/cpufreq), but for processors that are off."""
    chosen: Counter[str] = Counter()
    drivers = set()
    for policy in policies.glob("policy*"):
        with suppress(OSError):
            chosen[(policy / "scaling_governor").read_text().strip()] += 1
            drivers.add((policy / "scaling_driver").read_text().strip())
    return Governors(driver=", ".join(sorted(drivers)), governors=dict(chosen))


def _probe() -> Governors:
    return look(_POLICIES)


def _judge(nodes: Nodes) -> Findings:
    scaled: Mapping[str, Governors] = nodes.probed(_ID)
    chosen: dict[str, dict[str, str]] = {}
    for host, seen in scaled.items():
        held = seen.governors.get("powersave", 0)
        if held and seen.driver.replace("_", "-") not in _ACTIVE_DRIVERS:
            how = f"by the governor powersave of {seen.driver}"
            found = f"{held} of {sum(seen.governors.values())} clocks are held at their lowest {how}"
            yield nodes.finding("cpu governor", host, found, _FIX)
        else:
            chosen.setdefault(seen.driver, {})[host] = ", ".join(sorted(seen.governors))
    for driver, values in chosen.items():
        yield from nodes.odd("cpu governor", f"under {driver} has the governor", values, _FIX)


def _evidence(nodes: Nodes) -> str:
    answers = nodes.probed(_ID).values()
    return ", ".join(sorted({f"{name} of {seen.driver}" for seen in answers for name in seen.governors}))


def _not_applicable(nodes: Nodes) -> str:
    scaled = any(seen.governors for seen in nodes.probed(_ID).values())
    return "" if scaled else "no node's kernel scales clocks, as in most virtual machines"


CHECK = HostCheck(
    id=_ID,
    names=("cpu governor",),
    place=245,
    judge=_judge,
    evidence=_evidence,
    not_applicable=_not_applicable,
    probe=_probe,
)
