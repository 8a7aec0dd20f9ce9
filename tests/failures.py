"""What failed in a run of `make test`, once more at its end: three lanes print side by side, for an hour."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

_LANE = re.compile(r"([a-z-]+): ")
_SECTION = re.compile(r"=+ (?P<title>.+?) =+")
_TEST = re.compile(r"_{3,} .+ _{3,}")
_PLACE = re.compile(r"\S+\.py:\d+: \S.*")
_ELSEWHERE = re.compile(
    r"(make(\[\d+\])?: )?\*\*\* \[.*"  # a target that failed
    r"|.* is over its budget: .*"  # tests/budget.py
    r"|\S+:\d+(:\d+)?: .*error.*"  # mypy, yamllint
    r"|INTERNALERROR> \w.*|!{3,} .* !{3,}"  # pytest itself
)
SHOWN_LINES = 12


def failures_in(lines: Iterable[str]) -> Iterator[str]:
    """The lines that say which target or test failed and what it found, each with its lane.

    Of a test: its name, the first lines that pytest marks with E, and where it was.
    """
    title: dict[str, str] = {}
    shown: dict[str, int] = {}
    for line in lines:
        lane, text = _lane_and_text(line.rstrip("\n"))
        if section := _SECTION.fullmatch(text):
            title[lane] = section["title"]
        within = title.get(lane) in {"FAILURES", "ERRORS"}
        if within and _TEST.fullmatch(text):
            shown[lane] = 0
        elif within and (text.startswith("E  ") or _PLACE.fullmatch(text)):
            shown[lane] = shown.get(lane, 0) + 1
            if shown[lane] > SHOWN_LINES:
                continue
        elif not _ELSEWHERE.fullmatch(text):
            continue
        yield f"{lane}: {text}" if lane else text


def _lane_and_text(line: str) -> tuple[str, str]:
    lane = _LANE.match(line)
    return (lane[1], line[lane.end() :]) if lane else ("", line)


def main() -> None:
    """Reads what `make test` printed from the file that is named."""
    with Path(sys.argv[1]).open(errors="replace") as log:
        failed = list(failures_in(log))
    print("", "What failed, of all that is above:", *failed, sep="\n")


if __name__ == "__main__":
    main()
