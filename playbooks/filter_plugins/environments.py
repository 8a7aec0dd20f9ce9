"""What `provision` knows of environments, under the names that the roles use."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from provision.bundle.trust import apt_key
from provision.environments import conda_layer, place, wheel_lock
from provision.environments.digests import odd_nodes


def explicit_lines(lock: str, channel: str) -> str:
    """The text of a conda lock as conda's explicit file."""
    return conda_layer.explicit_lines(conda_layer.parse(lock), channel=channel)


def lock_apart(lock: str) -> dict[str, str]:
    """The lock of wheels as two that pip is given, one after the other."""
    wheels, sources = wheel_lock.apart(lock)
    return {"wheels": wheels, "sources": sources}


def relayed(result: Mapping[str, Any]) -> list[str]:
    """The nodes that relay.py reached, from the result of its task; none where it did not run."""
    said = [json.loads(line) for line in result.get("stdout_lines", ()) if line.startswith("{")]
    return [line["node"] for line in said if line["ok"]]


def environment_plan(
    report: Mapping[str, Any], built_from: str, rename_foreign: bool, digest: str
) -> dict[str, str]:
    plan = place.plan_environment(report, built_from=built_from, digest=digest, rename_foreign=rename_foreign)
    return asdict(plan)


def kept_unfinished(result: Mapping[str, Any]) -> str:
    """What is said of an unfinished build that is kept, from the result of set_aside; "" where it is not."""
    return place.kept_unfinished(result["kept"], result["not_ours"]) if result["kept"] else ""


def settlement(
    report: Mapping[str, Any], prefix: str, proven: bool, ledger: Mapping[str, str]
) -> dict[str, str]:
    digest = ledger.get(f"{prefix} {report['built_from']}", "")
    return asdict(place.settle(report, prefix=prefix, proven=proven, digest=digest))


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "bundle_key": apt_key,
            "environment_plan": environment_plan,
            "explicit_lines": explicit_lines,
            "kept_unfinished": kept_unfinished,
            "lock_apart": lock_apart,
            "odd_environments": odd_nodes,
            "relayed": relayed,
            "settlement": settlement,
        }
