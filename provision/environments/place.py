"""What is done with an environment that a node holds already: nothing of somebody else's is deleted. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Report = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentPlan:
    """Why it is built, "" where nothing has to be done; `problem` says what forbids it."""

    reason: str
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """What becomes of the environment that was there before; `said` names what is kept."""

    state: str
    said: str


def plan_environment(
    report: Report, *, built_from: str, digest: str, rename_foreign: bool
) -> EnvironmentPlan:
    """Compares what environment_digest.py reports with what is wanted.

    Args:
        built_from: what the locks say.
        digest: what they gave before, as the controller remembers it; "" where it does not.
        rename_foreign: whether what somebody else made may be renamed.
    """
    if is_foreign(report) and not rename_foreign:
        return EnvironmentPlan(reason="", problem=_refusal(report))
    return EnvironmentPlan(reason=_reason(report, built_from, digest), problem="")


def is_foreign(report: Report) -> bool:
    """Whether something is there that no record of ours, begun or complete, claims."""
    return bool(report["occupied"]) and not report["built_from"] and not report["unfinished"]


def _reason(report: Report, built_from: str, digest: str) -> str:
    if not report["occupied"]:
        return "it is not there"
    if report["unfinished"]:
        return "an earlier build of ours was interrupted"
    if is_foreign(report):
        return "what is there was made by somebody else and is renamed"
    if report["built_from"] != built_from:
        return "its locks have changed"
    if report["digest"] != report["recorded"]:
        return _changes(report)
    if digest not in ("", report["digest"]):
        return "its files and its own record are not what these locks gave before: somebody changed both"
    return ""


def _refusal(report: Report) -> str:
    prefix = report["prefix"]
    renamed = '{"conda_env_rename_foreign": true}'
    return (
        f"build the environment {prefix}: it is there already ({_described(report)}), and no record on the "
        "node says that site.yml made it. Nothing was changed. To have it renamed, not deleted, run site.yml "
        f"again with -e '{renamed}': it becomes {prefix}.before-TIME; renamed back, it is what it was. To "
        "leave it where it is, set cluster_environment_prefix to another folder"
    )


def _described(report: Report) -> str:
    if report["link"]:
        return f"a link to {report['link']}"
    if not report["exists"]:
        return "a file"
    names = ", ".join(report["holds"])
    return f"a folder with {report['conda']} conda packages: {names}"


def settle(previous: Report, *, prefix: str, proven: bool, digest: str) -> Settlement:
    """Decides about what was there before: what is exactly as our record says is deleted, all else kept.

    Args:
        previous: the report of the folder that was set aside, its own files of this project compared too.
        proven: whether the new environment is there, checked and recorded.
        digest: what the locks of the previous one gave when it was first built; "" where nobody remembers.

    Returns:
        `said` with KEPT for the place where it lies once it is kept.
    """
    if proven and is_exactly_ours(previous, digest):
        return Settlement(state="removed", said="")
    said = (
        f"what was at {prefix} is kept as KEPT, since {_held(previous, digest)}. Its programs name their old "
        f"place, so it works fully only there. To have it back: mv {prefix} {prefix}.new; mv KEPT {prefix} "
        "(the next site.yml sets it aside again: packages that are to stay belong in the locks, see "
        "envs/README.md). Once nobody needs it: rm -r KEPT"
    )
    return Settlement(state="kept", said=said)


def kept_unfinished(place: str, not_ours: Sequence[str]) -> str:
    """What is said of an interrupted build of ours that is kept, since it holds more than its own files."""
    return (
        f"what an interrupted build of ours left is kept as {place}, since not all of it is known as that "
        f"build's: {', '.join(not_ours)}. Once nobody needs it: rm -r {place}"
    )


def is_exactly_ours(report: Report, digest: str) -> bool:
    recorded = bool(report["built_from"]) and report["digest"] == report["recorded"]
    return recorded and not report["link"] and not report["different"] and digest in ("", report["digest"])


def _held(report: Report, digest: str) -> str:
    if not report["built_from"]:
        return f"no record says that site.yml made it ({_described(report)})"
    if is_exactly_ours(report, digest):
        return "the new one is not proven yet"
    if is_exactly_ours(report, ""):
        return (
            "its files are as its record says, but not as its locks gave them before: somebody changed both"
        )
    return _changes(report)


def _changes(report: Report) -> str:
    differ = f"{report['different']} of its files differ from its record"
    return "; ".join([*changed_packages(report), f"{differ}: {', '.join(report['differences'][:5])}"])


def changed_packages(report: Report) -> list[str]:
    """What somebody did to its packages since it was recorded, in words."""
    added, gone = report["added"], report["gone"]
    words = {
        "added": [f"{name} {version}" for name, version in added.items() if name not in gone],
        "removed": [f"{name} {version}" for name, version in gone.items() if name not in added],
        "replaced": [f"{name} {gone[name]} by {version}" for name, version in added.items() if name in gone],
    }
    return [f"somebody {done} {', '.join(names)}" for done, names in words.items() if names]
