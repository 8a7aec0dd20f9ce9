"""What becomes of an environment that a node holds already."""

from __future__ import annotations

from typing import Any

import pytest

from provision.environments.place import plan_environment, settle

PREFIX = "/data/miniconda3/envs/llm"
ABSENT = {
    "prefix": PREFIX,
    "exists": False,
    "occupied": False,
    "link": "",
    "holds": [],
    "unfinished": False,
    "digest": "",
    "recorded": "",
    "built_from": "",
    "differences": [],
    "different": 0,
    "conda": 0,
    "files": 0,
    "added": {},
    "gone": {},
}
FOREIGN = {**ABSENT, "exists": True, "occupied": True, "holds": ["bin", "conda-meta"], "conda": 9}
OURS = {**FOREIGN, "built_from": "locks", "digest": "d1", "recorded": "d1"}
CHANGED = {**OURS, "digest": "d2", "different": 1, "differences": ["extra lib/a"], "added": {"flashy": "2.1"}}
LINK = {**ABSENT, "occupied": True, "link": "/models/llm"}
FILE = {**ABSENT, "occupied": True}


def reason(report: dict[str, Any], *, rename: bool = False, digest: str = "") -> str:
    return plan_environment(report, built_from="locks", digest=digest, rename_foreign=rename).reason


def test_what_has_to_be_done_is_said_with_its_reason() -> None:
    assert reason(OURS) == ""
    assert reason(ABSENT) == "it is not there"
    assert reason({**ABSENT, "exists": True}) == "it is not there"  # an empty folder
    assert reason({**OURS, "built_from": "other"}) == "its locks have changed"
    assert reason(CHANGED) == "somebody added flashy 2.1; 1 of its files differ from its record: extra lib/a"
    assert reason({**FOREIGN, "unfinished": True}) == "an earlier build of ours was interrupted"


def test_a_node_that_changed_files_and_record_alike_is_found_by_what_the_controller_remembers() -> None:
    forged = {**OURS, "digest": "d2", "recorded": "d2"}

    assert reason(OURS, digest="d1") == ""
    assert "somebody changed both" in reason(forged, digest="d1")
    assert settle(OURS, prefix=PREFIX, proven=True, digest="d1").state == "removed"
    kept = settle(forged, prefix=PREFIX, proven=True, digest="d1")
    assert kept.state == "kept"
    assert "somebody changed both" in kept.said


@pytest.mark.parametrize(
    ("report", "named"),
    [
        (FOREIGN, "a folder with 9 conda packages: bin, conda-meta"),
        (LINK, "a link to /models/llm"),
        (FILE, "a file"),
    ],
)
def test_what_no_record_claims_is_refused_by_name_and_renamed_only_when_asked(
    report: dict[str, Any], named: str
) -> None:
    plan = plan_environment(report, built_from="locks", digest="", rename_foreign=False)

    assert plan.reason == ""
    assert f"{PREFIX}: it is there already ({named})" in plan.problem
    assert "-e '{\"conda_env_rename_foreign\": true}'" in plan.problem
    assert "is renamed" in reason(report, rename=True)


def test_only_what_is_exactly_as_recorded_is_removed_and_only_once_the_new_one_is_proven() -> None:
    assert settle(OURS, prefix=PREFIX, proven=True, digest="").state == "removed"
    kept = {
        "not proven": settle(OURS, prefix=PREFIX, proven=False, digest=""),
        "changed": settle(CHANGED, prefix=PREFIX, proven=True, digest=""),
        "a file of this project changed": settle(
            {**OURS, "different": 1}, prefix=PREFIX, proven=True, digest=""
        ),
        "reached by a link": settle({**OURS, "link": "/models/llm"}, prefix=PREFIX, proven=True, digest=""),
        "foreign": settle(FOREIGN, prefix=PREFIX, proven=True, digest=""),
    }

    assert {settlement.state for settlement in kept.values()} == {"kept"}
    assert "somebody added flashy 2.1; 1 of its files differ" in kept["changed"].said
    assert "no record says that site.yml made it" in kept["foreign"].said
    assert f"mv KEPT {PREFIX}" in kept["foreign"].said
