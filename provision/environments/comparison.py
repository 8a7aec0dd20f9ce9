"""An environment of a node against its record and against what its locks gave before. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from provision.environments.place import changed_packages
from provision.printable import one_line

_TEXTS = ("digest", "recorded", "built_from", "link")
_LISTS = ("differences", "holds")
_PACKAGES = ("added", "gone")
_NUMBERS = ("different", "conda")
_FLAGS = ("exists", "occupied", "unfinished")


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What a node's environment is: `problem` is empty where it is as it was built.

    added, gone: versions of packages by name; one that was replaced is in both. differences: some of the
    files, each with what it is (changed, extra, missing, open); `different` counts them all.
    """

    node: str
    problem: str
    digest: str = ""
    added: Mapping[str, str]
    gone: Mapping[str, str]
    differences: tuple[str, ...] = ()
    different: int = 0


def unseen(node: str, why: str) -> Comparison:
    """A node that did not say."""
    return Comparison(node=node, problem=f"not seen: {one_line(why)}", added={}, gone={})


def compare(node: str, report: Mapping[str, Any], *, prefix: str, ledger: Mapping[str, str]) -> Comparison:
    """Judges what environment_digest.py reports there.

    Args:
        ledger: the digest of each environment that all nodes agreed on first, as the controller keeps it.

    Raises:
        ValueError: it is no such report.
    """
    found = _checked(report)
    return Comparison(
        node=node,
        problem=_problem(found, prefix, ledger.get(f"{prefix} {found['built_from']}", "")),
        digest=found["digest"],
        added=found["added"],
        gone=found["gone"],
        differences=tuple(found["differences"]),
        different=found["different"],
    )


def _problem(report: Mapping[str, Any], prefix: str, wanted: str) -> str:
    if not report["occupied"]:
        return f"there is no environment at {prefix}"
    if report["unfinished"]:
        return "a build of it was interrupted"
    if not report["built_from"]:
        return f"no record says that site.yml made what is at {prefix}"
    if report["digest"] != report["recorded"] or report["different"]:
        number = report["different"]
        differ = f"{number} {'files differ' if number != 1 else 'file differs'} from its record"
        return "; ".join([*changed_packages(report), differ])
    if wanted not in ("", report["digest"]):
        return (
            "its files are as its own record says, but not as its locks gave them before: "
            "somebody changed both"
        )
    return ""


def _checked(report: Mapping[str, Any]) -> dict[str, Any]:
    """The parts that are used, of the types that they have; texts as a terminal may get them."""
    try:
        texts = {name: _text(report[name]) for name in _TEXTS}
        lists = {name: [_text(one) for one in report[name]] for name in _LISTS}
        packages = {
            name: {_text(key): _text(value) for key, value in report[name].items()} for name in _PACKAGES
        }
        numbers = {name: report[name] for name in (*_NUMBERS, *_FLAGS)}
    except (KeyError, TypeError, AttributeError) as e:
        raise ValueError("it does not answer as asked") from e
    if not all(isinstance(number, int) for number in numbers.values()):
        raise ValueError("it does not answer as asked")
    return {**texts, **lists, **packages, **numbers}


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return one_line(value)
