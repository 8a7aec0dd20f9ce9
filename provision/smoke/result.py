"""What `python -m runtime smoke --json` says, with the probable causes of each finding. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from provision.diagnose.causes import Row, explain

PASSED, FAILED, BAD_INPUT, INCONCLUSIVE = 0, 1, 2, 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that the test found; `conclusive` is False where it names those who may be at fault."""

    check: str
    hosts: tuple[str, ...]
    found: str
    fix: str
    conclusive: bool

    @property
    def words(self) -> str:
        return f"{self.check}: {self.found}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SmokeResult:
    """A test that ended: its verdict, seconds and findings, and all that it wrote."""

    verdict: str
    seconds: float
    findings: tuple[Finding, ...]
    document: Mapping[str, Any]


def parse(text: str) -> SmokeResult | None:
    """Reads the JSON of a test; None where it is not whole, as after a test that was killed."""
    try:
        document = json.loads(text)
        return SmokeResult(
            verdict=str(document["verdict"]),
            seconds=float(document["seconds"]),
            findings=tuple(_finding(entry) for entry in document["findings"]),
            document=document,
        )
    except (ValueError, KeyError, TypeError):
        return None


def _finding(entry: Mapping[str, Any]) -> Finding:
    return Finding(
        check=str(entry["check"]),
        hosts=tuple(entry["hosts"]),
        found=str(entry["found"]),
        fix=str(entry["fix"]),
        conclusive=bool(entry.get("conclusive", True)),
    )


def exit_code(status: int, result: SmokeResult | None) -> int:
    """The status to end with: 0 only when program and result both say that everything passed.

    Args:
        status: what the program on the node ended with; 124 is timeout(1).
    """
    if status == BAD_INPUT:
        return BAD_INPUT
    if result is None:
        return INCONCLUSIVE
    if status == PASSED and result.verdict == "pass":
        return PASSED
    return FAILED if status == FAILED and result.verdict == "fail" else INCONCLUSIVE


def explained(result: SmokeResult, rows: Sequence[Row]) -> dict[str, Any]:
    """The test's document; each finding has the doctor's rows that its words lead to under `rows`."""
    causes = [
        [{"row": row.name, "cause": row.cause, "check": row.check, "fix": row.fix} for row in found]
        for found in (explain(finding.check, finding.found, rows) for finding in result.findings)
    ]
    findings = [
        {**entry, "rows": told} for entry, told in zip(result.document["findings"], causes, strict=True)
    ]
    return {**result.document, "findings": findings}


# HTML 4.8.5: with an empty `sandbox` a frame runs no script; from `srcdoc` it inherits the policy of the page
# around it (CSP 3, 7.8), so that it loads nothing either.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_STYLE = "html, body { margin: 0; height: 100%; } iframe { border: 0; width: 100%; height: 99vh; }"


def harmless(page: str, *, title: str) -> str:
    """A page around another machine's page, which is shown and cannot act."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n"
        f'<body><iframe sandbox="" title="{escape(title)}" srcdoc="{escape(page)}"></iframe></body></html>\n'
    )
