"""A lane fails by the name of a module that became half as dear again, not because the machine is busy."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests import budget, yardstick
from tests.budget import Sample, Took

pytest_plugins = ["pytester"]
ROOT = Path(__file__).parents[2]
DEAR = Took(seconds=100, yardstick=20)


@pytest.mark.parametrize(
    ("took", "over"),
    [
        (Took(seconds=100, yardstick=20), False),
        (Took(seconds=149, yardstick=20), False),
        (Took(seconds=151, yardstick=20), True),
        # Busier: all takes three times as long, the fixed work too.
        (Took(seconds=300, yardstick=60), False),
        (Took(seconds=460, yardstick=60), True),
        # Less busy: it takes a smaller part of the longer time, since a part of it was waiting.
        (Took(seconds=90, yardstick=10), False),
        # A minute that was only slept, on a machine with nothing else to do.
        (Took(seconds=160, yardstick=19), True),
    ],
)
def test_over_is_half_as_much_again_in_seconds_and_in_pieces_of_work(took: Took, over: bool) -> None:
    assert budget.is_over(took, DEAR) is over


def test_a_module_of_seconds_is_left_alone() -> None:
    assert not budget.is_over(Took(seconds=14, yardstick=20), Took(seconds=5, yardstick=20))
    assert budget.is_over(Took(seconds=16, yardstick=20), Took(seconds=5, yardstick=20))


def test_the_yardstick_of_a_module_is_what_was_measured_while_it_ran() -> None:
    samples = [Sample(time=t, milliseconds=10 if t < 10 else 40, busy=2.0 * t, nodes={}) for t in range(20)]

    assert budget.yardstick_of(samples, [(0, 4)]) == 10
    assert budget.yardstick_of(samples, [(8, 9), (10, 11)]) == 25
    assert budget.yardstick_of(samples, [(3.5, 3.6)]) == 25  # no sample: that of the lane


def test_a_node_that_restarts_counts_anew() -> None:
    seen = [{"clusterwright/site/te1": 5.0}, {"clusterwright/site/te1": 8.0}, {}]
    seen += [{"clusterwright/site/te1": 2.0, "machine.slice/clusterwright-spare-te2.scope": 1.0}]
    samples = [Sample(time=t, milliseconds=1, busy=0, nodes=nodes) for t, nodes in enumerate(seen)]

    assert budget.node_seconds(samples) == {"site": 5.0, "spare": 1.0}


def test_the_program_beside_a_lane_sees_the_processors_at_work() -> None:
    before = yardstick.busy_seconds()
    milliseconds = sum(yardstick.fixed_work() for _ in range(5))

    assert milliseconds > 5
    assert yardstick.busy_seconds() > before


MODULES = {
    "cheap": "def test_it(): pass",
    "dear": "import time\ndef test_it(): time.sleep({seconds})",
    "new": "import time\ndef test_it(): time.sleep(0.5)",
}
# Times of a lane of minutes, in little.
LITTLE = "from tests import budget\nbudget.SHOWN_SECONDS, budget.SPARED_SECONDS = 0.3, 1.0\n"


def run(pytester: pytest.Pytester, seconds: float) -> pytest.RunResult:
    for name, text in MODULES.items():
        (pytester.path / f"test_{name}.py").write_text(text.format(seconds=seconds))
    return pytester.runpytest_subprocess("-p", "little", "-p", "tests.budget", "--lane", "some")


def test_a_module_that_was_slowed_down_fails_its_lane_by_name_and_one_that_was_not_does_not(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lane takes its own budget over, and holds it against two runs as they are and one that sleeps."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (pytester.path / "budget.yml").write_text("---\n")
    monkeypatch.setenv("BUDGET_OF_TESTS", str(pytester.path / "budget.yml"))
    (pytester.path / "little.py").write_text(LITTLE)

    first = run(pytester, 1)
    taken = pytester.run(sys.executable, "-c", f"{LITTLE}budget.main()")
    again = [run(pytester, 1), run(pytester, 1)]
    slowed = run(pytester, 15)  # the fixed work beside such short runs took up to 7 times as long

    assert "test_dear.py has no budget: 1 s. Give it one: make budget" in first.outlines
    assert taken.ret == 0, taken.outlines
    assert [one.ret for one in (first, *again)] == [0, 0, 0]
    assert not any("over its budget" in line for one in again for line in one.outlines)
    assert slowed.ret == 1
    said = [line for line in slowed.outlines if "over its budget" in line]
    assert [line.partition(":")[0] for line in said] == ["test_dear.py is over its budget"]
    modules = json.loads((pytester.path / ".pytest_cache/lanes/some.json").read_text())["modules"]
    assert modules["test_dear.py"]["seconds"] > 15


def test_every_line_of_the_budget_names_a_module() -> None:
    assert [module for module in budget.read_budget() if not (ROOT / module).is_file()] == []
