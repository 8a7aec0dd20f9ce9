"""What people write of wheels: files that include each other, and comments that are for the solver."""

from __future__ import annotations

from pathlib import Path

import pytest

from provision.environments.wheel_inputs import (
    included,
    left_out,
    local_builds,
    own_index,
    solved_until,
)
from provision.errors import BadInput


def test_files_that_are_included_by_several_count_once(tmp_path: Path) -> None:
    torch, mine = tmp_path / "torch", tmp_path / "mine"
    torch.mkdir()
    mine.mkdir()
    (torch / "wheels.in").write_text("numpy\n")
    (torch / "wheels-cpu.in").write_text("-r wheels.in\ntorch\n")
    (mine / "wheels.in").write_text("-r ../torch/wheels.in\npeft\n")
    (mine / "wheels-cpu.in").write_text("-r ../torch/wheels-cpu.in\n-r wheels.in\n")

    found = included(mine / "wheels-cpu.in")

    assert [str(path.relative_to(tmp_path)) for path in found] == [
        "mine/wheels-cpu.in",
        "torch/wheels-cpu.in",
        "mine/wheels.in",
        "torch/wheels.in",
    ]


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "wheels-cpu.in").write_text("-r wheels.in\n")

    with pytest.raises(BadInput, match=r"there is no .*/wheels\.in"):
        included(tmp_path / "wheels-cpu.in")


def test_comments_for_the_solver_are_read_and_others_are_not() -> None:
    texts = [
        "# index: cu118\n# Of two: torchvision\ntorch==2.7.1+cu118  # not 2.8+cu118\n",
        "# solved until: 2026-11-27T00:00:00Z\n# leaves out: torchvision torchaudio\nnumpy\n",
        "# solved until: 2020-01-01T00:00:00Z\n# leaves out: torchcodec\n",
    ]

    assert solved_until(texts) == "2026-11-27T00:00:00Z"
    assert own_index(texts) == "cu118"
    assert left_out(texts) == ["torchaudio", "torchcodec", "torchvision"]
    assert local_builds(texts) == ["torch==2.7.1+cu118"]
    assert (solved_until(["numpy"]), own_index(["numpy"]), left_out(["numpy"])) == ("", "", [])
