"""What `provision env verify` says of a node's environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from provision.environments.comparison import compare, unseen
from provision.environments.on_nodes import read_ledger
from provision.errors import BadInput

PREFIX = "/data/miniconda3/envs/llm"
LEDGER = {f"{PREFIX} locks": "d1"}
WELL: dict[str, Any] = {
    "exists": True,
    "occupied": True,
    "unfinished": False,
    "link": "",
    "holds": ["bin"],
    "conda": 9,
    "digest": "d1",
    "recorded": "d1",
    "built_from": "locks",
    "differences": [],
    "different": 0,
    "added": {},
    "gone": {},
}
SIX = {"digest": "d2", "added": {"six": "1.17.0"}, "different": 3, "differences": ["extra lib/six.py"]}
PATCHED = {"digest": "d2", "different": 1, "differences": ["changed lib/torch/version.py"]}
NUMPY = {"digest": "d2", "added": {"numpy": "2.0"}, "gone": {"numpy": "1.9"}, "different": 9}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({}, ""),
        ({"built_from": "locks of before", "digest": "d9", "recorded": "d9"}, ""),
        (SIX, "somebody added six 1.17.0; 3 files differ from its record"),
        (PATCHED, "1 file differs from its record"),
        (NUMPY, "somebody replaced numpy 1.9 by 2.0; 9 files differ from its record"),
        (
            {"digest": "d2", "gone": {"rich": "14"}, "different": 2},
            "somebody removed rich 14; 2 files",
        ),
        ({"different": 1, "differences": ["open bin/x (mode 4755)"]}, "1 file differs from its record"),
        ({"digest": "d2", "recorded": "d2"}, "somebody changed both"),
        ({"occupied": False}, f"there is no environment at {PREFIX}"),
        ({"unfinished": True, "built_from": ""}, "a build of it was interrupted"),
        ({"built_from": ""}, f"no record says that site.yml made what is at {PREFIX}"),
    ],
)
def test_what_is_not_as_it_was_built_is_named(changes: dict[str, Any], problem: str) -> None:
    found = compare("te1", {**WELL, **changes}, prefix=PREFIX, ledger=LEDGER)

    assert problem in found.problem
    assert bool(found.problem) == bool(problem)


@pytest.mark.parametrize(
    "changes",
    [{"added": [1]}, {"digest": 5}, {"different": "1"}, {"differences": [None]}, {"gone": {"a": 1}}],
)
def test_an_answer_of_another_kind_is_none(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="does not answer as asked"):
        compare("te1", {**WELL, **changes}, prefix=PREFIX, ledger=LEDGER)


def test_what_a_node_says_does_not_reach_the_terminal_as_it_is() -> None:
    shown = {
        **SIX,
        "differences": ["extra lib/\x1b[2Ja\nte2: as it was built"],
        "added": {"six\n": "\x1b]0;x\x07"},
    }

    found = compare("te1", {**WELL, **shown}, prefix=PREFIX, ledger=LEDGER)

    assert found.differences == ("extra lib/a / te2: as it was built",)
    assert "\x1b" not in found.problem + unseen("te1", "no\x1b[2J").problem


def test_a_ledger_that_is_damaged_is_named_and_none_is_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "environments.yml"
    assert read_ledger(path) == {}
    for text in ("- a\n", "a: 5\n", "{", "\0"):
        path.write_text(text)
        with pytest.raises(BadInput, match=r"environments\.yml"):
            read_ledger(path)
    path.write_text(f"{PREFIX} locks: d1\n")
    assert read_ledger(path) == LEDGER
