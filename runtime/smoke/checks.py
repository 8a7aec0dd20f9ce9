"""Every check of the smoke test, in its order, and what became of each. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from runtime.probes.finding import Finding
from runtime.smoke.host.registry import host_checks

PASS, FAIL, INCONCLUSIVE, SKIPPED = "pass", "fail", "inconclusive", "skipped"

# Identity of a check, and the names that its findings carry. Those of hosts are a module each.
CATALOGUE: Mapping[str, tuple[str, ...]] = {
    **{check.id: check.names for check in host_checks()},
    "sockets.connect": ("sockets",),
    "sockets.strangers": ("strangers",),
    "sockets.path-mtu": ("path mtu",),
    "sockets.contents": ("stream contents",),
    "sockets.latency": ("latency",),
    "sockets.bandwidth": ("bandwidth",),
    "collectives.progress": ("progress", "job"),
    "collectives.contents": ("contents",),
    "collectives.transport": ("transport",),
    "certificate.written": ("certificate",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What became of one check: `where` is empty unless it names someone, `fix` unless there is one."""

    id: str
    verdict: str
    where: str
    evidence: str
    fix: str


def checks(
    findings: Sequence[Finding], *, done: Mapping[str, str], skipped: Mapping[str, str]
) -> tuple[Check, ...]:
    """An entry for each finding, and one for each check without any.

    Args:
        done: evidence of the checks that were carried out.
        skipped: why others were not; a check in neither was not reached.
    """
    named = {name: identity for identity, names in CATALOGUE.items() for name in names}
    by_check: dict[str, list[Finding]] = {}
    for finding in findings:
        by_check.setdefault(named[finding.check], []).append(finding)
    return tuple(
        check
        for identity in CATALOGUE
        for check in _entries(identity, by_check.get(identity, ()), done=done, skipped=skipped)
    )


def _entries(
    identity: str, findings: Sequence[Finding], *, done: Mapping[str, str], skipped: Mapping[str, str]
) -> Iterator[Check]:
    for finding in findings:
        yield Check(
            id=identity,
            verdict=FAIL if finding.conclusive else INCONCLUSIVE,
            where=finding.where or ", ".join(finding.hosts),
            evidence=finding.found,
            fix=finding.fix,
        )
    if not findings and identity in done and identity not in skipped:
        yield Check(id=identity, verdict=PASS, where="", evidence=done[identity], fix="")
    elif not findings:
        reason = skipped.get(identity, "not reached: an earlier step failed")
        yield Check(id=identity, verdict=SKIPPED, where="", evidence=reason, fix="")
