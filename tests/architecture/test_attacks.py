"""An attack shows how it was refused: who records no words fails; the table prints those of the others."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

CONFTEST = Path(__file__).parents[1] / "conftest.py"
ATTACKS = """
import pytest

@pytest.mark.attack("user")
@pytest.mark.parametrize("form", range(3))
def test_a_link_s_target(form, record_refusal):
    record_refusal(f"it is\\n a \\x1b[2Jlink {form // 2} {'x' * 300}")

@pytest.mark.attack("node")
def test_a_silent_one():
    pass

@pytest.mark.attack("node")
def test_an_empty_one(record_refusal):
    record_refusal("\\x1b[2J")

def test_no_attack():
    pass
"""


def test_the_table_shows_the_words_of_each_refusal_and_fails_who_has_none(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(CONFTEST.parents[1]))
    pytester.makeconftest(CONFTEST.read_text())
    pytester.makeini("[pytest]\nmarkers =\n  attack(attacker): as in this project")
    pytester.makepyfile(ATTACKS)

    ended = pytester.runpytest_subprocess("-m", "attack")
    others = pytester.runpytest_subprocess()

    ended.assert_outcomes(passed=3, failed=2, deselected=1)
    others.assert_outcomes(passed=4, failed=2)
    table = ended.outlines[next(n for n, line in enumerate(ended.outlines) if " attacks " in line) + 1 :]
    words = f"      it is a link 0 {'x' * 300}"
    assert table[:4] == [
        "node           0 of 1   a silent one",
        "      no refusal was recorded",
        "node           0 of 1   an empty one",
        "      no refusal was recorded",
    ]
    assert table[4:7] == [
        "user           3 of 3   a link's target",
        f"{words[:187]}... (2 times)",
        f"{words.replace('0', '1')[:197]}...",
    ]
    assert table[7] == "3 attacks in 5 forms, 2 of which were not refused as they must be"
    assert "it bears the mark `attack` and hands no words to record_refusal" in ended.stdout.str()
