"""What role host_tuning writes, and whether it holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from provision.roles import host_tuning as tuning


def live_values(observed: Mapping[str, Any]) -> dict[str, str]:
    said = {name: str(result["stdout"]) for name, result in observed["commands"].items()}
    return {
        **tuning.settings_in(said["sysctl"]),
        **tuning.limits_of_services(said["services"]),
        **tuning.limits_of_session("*", said["session"]),
        **tuning.limits_of_session("root", said["root"]),
    }


def tuning_plan(
    observed: Mapping[str, Any], paths: Mapping[str, str], wanted: Mapping[str, Any]
) -> dict[str, Any]:
    """The texts of our files by their kind, and what has to be live."""
    files = {path: str(file["text"]) for path, file in observed["files"].items() if file}
    live = live_values(observed)
    memlock, nofile = str(wanted["memlock"]), str(wanted["nofile"])
    in_bytes = str(int(memlock) * 1024) if memlock.isdigit() else "infinity"
    domains = [f"{domain} {kind}" for domain in ("*", "root") for kind in ("soft", "hard")]
    services = {"DefaultLimitMEMLOCK": f"{in_bytes}:{in_bytes}", "DefaultLimitNOFILE": f"{nofile}:{nofile}"}
    limits = {f"{of} memlock": memlock for of in domains} | {f"{of} nofile": nofile for of in domains}
    sysctl = {name: " ".join(str(value).split()) for name, value in sorted(wanted["sysctl"].items())}

    def planned(kind: str, values: Mapping[str, str], as_settings: Callable[[str], str] = str) -> tuning.Plan:
        settings = {path: as_settings(text) for path, text in files.items()}
        theirs = tuning.set_by_others(settings, paths[kind])
        return tuning.plan(values, live=live, ours=settings.get(paths[kind], ""), theirs=theirs)

    plans = {
        "limits": planned("limits", limits, tuning.limits_as_settings),
        "system": planned("system", services, tuning.pairs_of_limits),
        "sysctl": planned("sysctl", sysctl),
    }
    user = planned("user", services, tuning.pairs_of_limits)
    return {
        "limits": tuning.file_text(plans["limits"], mark=" "),
        "system": tuning.file_text(plans["system"], head=["[Manager]"], mark="="),
        "user": tuning.file_text(user, head=["[Manager]"], mark="="),
        "sysctl": tuning.file_text(plans["sysctl"]),
        "live": {name: value for plan in plans.values() for name, value in plan.live.items()},
    }


def tuning_problems(observed: Mapping[str, Any], plan: Mapping[str, Any]) -> list[str]:
    return tuning.shortfalls(plan["live"], live_values(observed))


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"tuning_plan": tuning_plan, "tuning_problems": tuning_problems}
