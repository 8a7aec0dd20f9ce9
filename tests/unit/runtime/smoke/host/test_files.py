"""Whose environment is not what was installed."""

from __future__ import annotations

from runtime.probes.host import Files
from runtime.smoke.host.registry import judge
from tests.unit.runtime.smoke.host.cluster import nodes


def test_files_that_were_changed_are_named_and_so_is_what_cannot_be_told() -> None:
    changed = ("changed torch/a.py", "missing torch/b.py", "extra torch/c.py")
    asked = nodes(
        files={
            "te1": Files(known=True),
            "te2": Files(known=True, different=5, first=changed),
            "te3": Files(known=False),
            "te4": Files(known=True, problem="gave no answer in 30 s"),
        }
    )

    found = {one.hosts[0]: one.found for one in judge(asked)}
    assert list(found) == ["te2", "te3", "te4"]
    assert "no record" in found["te3"]
    assert found["te2"].endswith("changed torch/a.py, missing torch/b.py, extra torch/c.py and 2 more")
    assert "gave no answer in 30 s" in found["te4"]
