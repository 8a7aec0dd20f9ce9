"""The CUDA that role nvidia_gpu checks a driver against is the one that the environment brings."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[3]


def test_the_role_asks_for_the_cuda_of_the_lock() -> None:
    defaults = yaml.safe_load(
        (ROOT / "playbooks" / "roles" / "nvidia_gpu" / "defaults" / "main.yml").read_text()
    )
    lock = (ROOT / "envs" / "llm" / "wheels-cuda130.lock").read_text()

    locked = re.search(r"^cuda-toolkit==(\d+\.\d+)", lock, re.MULTILINE)

    assert locked is not None
    assert defaults["nvidia_gpu_cuda"] == locked[1]
    assert locked[1] in defaults["nvidia_gpu_minimum_drivers"]
