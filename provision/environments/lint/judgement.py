"""Holds a lock against all rules. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from provision.environments.lint import cuda_rules, entry_rules, source_rules, torch_rules
from provision.environments.lint.entries import (
    Fault,
    Finding,
    Floors,
    Group,
    LockFile,
    Package,
    Rule,
)
from provision.printable import one_line

RULES: tuple[Rule, ...] = (
    *cuda_rules.RULES,
    *torch_rules.RULES,
    *source_rules.RULES,
    *entry_rules.RULES,
)
_LONGEST = 300


def judge(lock: LockFile, floors: Floors) -> list[Finding]:
    """What is wrong in a lock, each fault once, errors first."""
    groups = list(_groups(lock, floors))
    found: dict[tuple[str, str, str], Finding] = {}
    for rule in RULES:
        for group in [_whole(lock, floors)] if rule.of_lock else groups:
            for fault in rule.check(group):
                one = _finding(rule, group, fault)
                found.setdefault((one.rule, f"{one.package}:{one.line}", one.problem), one)
    return sorted(found.values(), key=lambda one: (one.severity, one.line))


def _groups(lock: LockFile, floors: Floors) -> Iterator[Group]:
    for platform in dict.fromkeys(one.platform for one in lock.packages) or [""]:
        yield _group(lock, floors, platform, tuple(one for one in lock.packages if one.platform == platform))


def _whole(lock: LockFile, floors: Floors) -> Group:
    return _group(lock, floors, "", lock.packages)


def _group(lock: LockFile, floors: Floors, platform: str, packages: tuple[Package, ...]) -> Group:
    named = {(one.manager, one.name): one for one in packages}
    return Group(lock=lock, platform=platform, packages=packages, named=named, floors=floors)


def _finding(rule: Rule, group: Group, fault: Fault) -> Finding:
    place, problem = fault
    package = f"{place.name} {place.version}".strip() if isinstance(place, Package) else ""
    return Finding(
        rule=rule.id,
        severity=rule.severity.value,
        file=group.lock.path,
        line=place.line if place else 0,
        package=_shown(package),
        platform=_shown(place.platform if isinstance(place, Package) else ""),
        problem=_shown(problem),
        fix=rule.fix,
    )


def _shown(text: str) -> str:
    return one_line(text)[:_LONGEST]
