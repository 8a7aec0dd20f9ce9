"""Configurations as people write them: what is in force, or the exact problems."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runtime.train.config import ConfigError, Resolved, Situation, read_config
from runtime.train.config.fields import walk

CASES = Path(__file__).parents[4] / "cases" / "ds_config"


def cases(*, with_problems: bool) -> list[Any]:
    found = []
    for path in sorted(CASES.glob("*.json")):
        for case in json.loads(path.read_text()):
            if ("problems" in case) == with_problems:
                found.append(pytest.param(case, id=f"{path.stem}: {case['name']}"))
    return found


def resolve(case: dict[str, Any]) -> Resolved:
    return read_config(case["config"], Situation(**{"world_size": 1, **case.get("situation", {})}))


@pytest.mark.parametrize("case", cases(with_problems=False))
def test_a_good_configuration_is_in_force_as_expected(case: dict[str, Any]) -> None:
    resolved = resolve(case)

    in_force = {path: value for path, _, value in walk(resolved.config)}
    assert case["in_force"]
    assert sorted(resolved.ignored) == case.get("ignored", [])
    for path, value in case["in_force"].items():
        assert json.loads(json.dumps(in_force[path])) == value, path


@pytest.mark.parametrize("case", cases(with_problems=True))
def test_a_bad_configuration_is_refused_with_every_problem(case: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(case)

    assert [str(problem) for problem in caught.value.problems] == case["problems"]


def test_there_are_cases_of_every_kind() -> None:
    assert len(cases(with_problems=False)) >= 20
    assert len(cases(with_problems=True)) >= 40
