"""Role nvidia_gpu holds a node against the kind of the environment: what kinds.yml says its locks bring."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
KINDS = {kind["name"]: kind for kind in yaml.safe_load((ROOT / "envs" / "kinds.yml").read_text())["kinds"]}
LOCKS = [path for path in sorted((ROOT / "envs").glob("*/wheels-cuda*.lock")) if path.stem[7:] in KINDS]
DRIVERS = yaml.safe_load((ROOT / "playbooks" / "roles" / "nvidia_gpu" / "defaults" / "main.yml").read_text())


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: f"{lock.parent.name}/{lock.name}")
def test_a_lock_brings_the_torch_and_the_cuda_of_its_kind(lock: Path) -> None:
    kind, text = KINDS[lock.stem.removeprefix("wheels-")], lock.read_text()

    torch = re.search(r"^torch==([0-9.]+)", text, re.MULTILINE)
    cuda = re.search(
        r"^(?:nvidia-cuda-runtime(?:-cu12)?|cuda-toolkit(?:\[[^]]*\])?)==(\d+\.\d+)", text, re.MULTILINE
    )

    assert torch is not None
    assert cuda is not None
    assert cuda[1] == kind["cuda"]
    assert torch[1] == kind["torch"] or torch[1] in kind.get("also", ())


@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
def test_a_kind_needs_the_driver_that_its_cuda_does(kind: dict[str, str]) -> None:
    assert DRIVERS["nvidia_gpu_minimum_drivers"][kind["cuda"]] == kind["driver"]
