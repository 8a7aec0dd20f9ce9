"""From texts and facts to probable causes: a table of rows, matched here without looking anywhere."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One symptom.

    pattern: matched against each line of a text. check: how a person confirms the cause. consequence: such a
    line says that something else went wrong first. source: where the symptom is described. checks: names of
    the smoke test's checks that find the same cause.
    """

    name: str
    pattern: str
    cause: str
    check: str
    fix: str
    consequence: bool = False
    source: str = ""
    checks: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """Lines of one file, or of a standard input."""

    name: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """A probable cause: which row, where it shows (file and line, or nodes), how often, the words there."""

    row: str
    where: str
    evidence: str
    cause: str
    check: str
    fix: str
    consequence: bool = False
    count: int = 1


_WIDTH = 300  # a line of C++ symbols is longer than a person reads


def diagnose(texts: Iterable[Text], rows: Sequence[Row]) -> list[Diagnosis]:
    """One diagnosis for each row and file that shows its symptom; first causes before consequences."""
    compiled = [(row, re.compile(row.pattern)) for row in rows]
    found = [
        diagnosis for text in texts for row, pattern in compiled for diagnosis in _in_text(row, pattern, text)
    ]
    order = [row.name for row in rows]
    return sorted(found, key=lambda one: (one.consequence, order.index(one.row)))


def _in_text(row: Row, pattern: re.Pattern[str], text: Text) -> Iterable[Diagnosis]:
    lines = [
        (number, line) for number, line in enumerate(text.text.splitlines(), start=1) if pattern.search(line)
    ]
    if lines:
        number, line = lines[0]
        yield Diagnosis(
            row=row.name,
            where=f"{text.name}:{number}",
            evidence=line.strip()[:_WIDTH],
            cause=row.cause,
            check=row.check,
            fix=row.fix,
            consequence=row.consequence,
            count=len(lines),
        )


def explain(check: str, words: str, rows: Sequence[Row]) -> list[Row]:
    """The rows of a finding that the smoke test made: by the name of its check, else by its words."""
    named = [row for row in rows if check in row.checks]
    return named or [row for row in rows if any(re.search(row.pattern, line) for line in words.splitlines())]
