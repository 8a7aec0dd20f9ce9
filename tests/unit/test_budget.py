"""A lane fails by the name of a module that became half as dear again, not because the machine is busy."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from tests import budget, yardstick
from tests.budget import Sample, Took

pytest_plugins = ["pytester"]
ROOT = Path(__file__).parents[2]
DEAR = Took(seconds=100, yardstick=20, cpu=40, yardstick_cpu=10)


@pytest.mark.parametrize(
    ("took", "over"),
    [
        (DEAR, False),
        (replace(DEAR, cpu=59), False),
        (replace(DEAR, cpu=61), True),
        # A slower processor: the fixed work takes longer, too.
        (replace(DEAR, cpu=80, yardstick_cpu=20), False),
        (replace(DEAR, cpu=130, yardstick_cpu=20), True),
        # Other lanes beside it: it waits for them, and so does the fixed work.
        (replace(DEAR, seconds=500, yardstick=60), False),
        # Less busy: it takes a smaller part of the longer time, since a part of it was waiting.
        (replace(DEAR, seconds=90, yardstick=5), False),
        # Minutes that were only slept.
        (replace(DEAR, seconds=290), False),
        (replace(DEAR, seconds=310), True),
        (replace(DEAR, seconds=310, yardstick=40), False),
    ],
)
def test_over_is_half_as_much_work_again_or_three_times_as_long(took: Took, over: bool) -> None:
    assert budget.is_over(took, DEAR) is over


def test_a_module_of_seconds_is_left_alone() -> None:
    small = Took(seconds=3, yardstick=20, cpu=2, yardstick_cpu=10)

    assert not budget.is_over(replace(small, cpu=6.9), small)
    assert budget.is_over(replace(small, cpu=7.1), small)
    assert not budget.is_over(replace(small, seconds=12), small)
    assert budget.is_over(replace(small, seconds=14), small)


def sample(at: float, milliseconds: float, nodes: Mapping[str, float]) -> Sample:
    return Sample(time=at, milliseconds=milliseconds, cpu_milliseconds=5, busy=2.0 * at, nodes=nodes)


def test_the_yardstick_of_a_module_is_what_was_measured_while_it_ran() -> None:
    samples = [sample(at, 10 if at < 10 else 40, {}) for at in range(20)]

    assert budget.yardstick_of(samples, [(0, 4)]) == (10, 5)
    assert budget.yardstick_of(samples, [(8, 9), (10, 11)]) == (25, 5)
    assert budget.yardstick_of(samples, [(3.5, 3.6)]) == (25, 5)  # no sample: that of the lane


def test_a_node_that_restarts_counts_anew() -> None:
    seen = [{"clusterwright/site/te1": 5.0}, {"clusterwright/site/te1": 8.0}, {}]
    seen += [{"clusterwright/site/te1": 2.0, "machine.slice/clusterwright-spare-te2.scope": 1.0}]
    samples = [sample(at, 1, nodes) for at, nodes in enumerate(seen)]

    assert budget.node_seconds(samples) == {"site": 5.0, "spare": 1.0}


def test_the_program_beside_a_lane_sees_the_processors_at_work() -> None:
    before = yardstick.busy_seconds()
    took = [yardstick.fixed_work() for _ in range(5)]

    assert sum(worked for _, worked in took) > 5
    assert all(worked <= milliseconds for milliseconds, worked in took)
    assert yardstick.busy_seconds() > before


MODULES = {
    "cheap": "def test_it(): pass",
    "dear": "import time\ndef test_it():\n  while time.process_time() < {seconds}: pass",
    "new": "import time\ndef test_it(): time.sleep(0.5)",
}
# Times of a lane of minutes, in little.
LITTLE = "from tests import budget\nbudget.SHOWN_SECONDS, budget.SPARED_WORK = 0.1, 0.5\n"


def run(pytester: pytest.Pytester, seconds: float) -> pytest.RunResult:
    for name, text in MODULES.items():
        (pytester.path / f"test_{name}.py").write_text(text.format(seconds=seconds))
    return pytester.runpytest_subprocess("-p", "little", "-p", "tests.budget", "--lane", "some")


def test_a_module_that_was_slowed_down_fails_its_lane_by_name_and_one_that_was_not_does_not(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lane takes its own budget over, and holds it against two equal runs and one that works more."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (pytester.path / "budget.yml").write_text("---\n")
    monkeypatch.setenv("BUDGET_OF_TESTS", str(pytester.path / "budget.yml"))
    (pytester.path / "little.py").write_text(LITTLE)

    first = run(pytester, 1)
    taken = pytester.run(sys.executable, "-c", f"{LITTLE}budget.main()")
    again = [run(pytester, 1), run(pytester, 1)]
    slowed = run(pytester, 5)

    assert any(line.startswith("test_dear.py has no budget: ") for line in first.outlines)
    assert taken.ret == 0, taken.outlines
    assert [one.ret for one in (first, *again)] == [0, 0, 0]
    assert not any("over its budget" in line for one in again for line in one.outlines)
    assert slowed.ret == 1
    said = [line for line in slowed.outlines if "over its budget" in line]
    assert [line.partition(":")[0] for line in said] == ["test_dear.py is over its budget"]
    modules = json.loads((pytester.path / ".pytest_cache/lanes/some.json").read_text())["modules"]
    assert modules["test_dear.py"]["cpu"] > 3


@pytest.mark.parametrize(
    "text",
    [
        '{"modules": {"tests/unit/test_budget.py": {"seconds": 9, "yardstick": 20}}}',
        '{"modules": {"tests/unit/test_budget.py": 9}}',
        '{"modules": {"tests/unit/test_budget.py": {"seconds": 9, "yardstick": 2, "cpu": 1, "',
        '{"tests/unit/test_budget.py": 9}',
        "[9]",
        "[[]]",
    ],
)
def test_records_of_another_version_are_named_with_what_to_run_and_the_budget_stays(
    text: str, tmp_path: Path
) -> None:
    lanes, kept = tmp_path / ".pytest_cache" / "lanes", tmp_path / "budget.yml"
    lanes.mkdir(parents=True)
    kept.write_text("---\n")
    took = dict.fromkeys(("seconds", "yardstick", "cpu", "yardstick_cpu"), 9)
    (lanes / "unit.json").write_text(json.dumps({"modules": {"tests/unit/test_budget.py": took}}))
    for name in ("lab", "distributed"):
        (lanes / f"{name}.json").write_text(text)

    ran = subprocess.run(
        [sys.executable, "-m", "tests.budget"],
        env={"PYTHONPATH": str(ROOT), "BUDGET_OF_TESTS": str(kept)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert ran.returncode == 1
    assert ran.stderr.count("\n") == 1
    named = ".pytest_cache/lanes/distributed.json .pytest_cache/lanes/lab.json"
    assert ran.stderr.startswith(f"{named}: not what lanes write now")
    assert ran.stderr.endswith(f": rm {named}; make test; make budget\n")
    assert kept.read_text() == "---\n"


def test_every_line_of_the_budget_names_a_module() -> None:
    assert [module for module in budget.read_budget() if not (ROOT / module).is_file()] == []
