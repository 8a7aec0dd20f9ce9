"""A lock holds wheels alone, and what is solved from its present inputs is not solved again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from provision.environments.locks import is_current, locks_of, without_wheel
from provision.errors import BadInput

ENVIRONMENTS = Path(__file__).parents[4] / "envs"


def package(name: str, *wheels: str, **other: Any) -> dict[str, Any]:
    urls = [{"url": f"https://index.example/{wheel}"} for wheel in wheels]
    return {"name": name, "version": "1", **({"wheels": urls} if wheels else {}), **other}


@pytest.mark.parametrize(
    ("found", "named"),
    [
        (package("einops", "einops-1-py3-none-any.whl", sdist={}), []),
        (package("torch", "torch-1-cp311-cp311-manylinux_2_28_x86_64.whl"), []),
        (package("torch", "torch-1%2Bcpu-cp311-cp311-linux_x86_64.whl"), []),
        (package("deepspeed", sdist={"url": "https://index.example/deepspeed-1.tar.gz"}), ["deepspeed 1"]),
        (package("deepspeed", "deepspeed-1-cp311-cp311-win_amd64.whl", sdist={}), ["deepspeed 1"]),
        (package("local", wheels=[{"path": "wheels/local-1-py3-none-any.whl"}]), []),
    ],
)
def test_a_package_without_a_wheel_for_linux_is_named(found: dict[str, Any], named: list[str]) -> None:
    assert without_wheel({"packages": [found]}) == named


def test_the_locks_of_this_repository_are_those_of_their_inputs_so_that_nobody_solves_the_lab_s() -> None:
    _, wheels = locks_of(ENVIRONMENTS / "llm")

    assert [lock.path.name for lock in wheels] == ["wheels-cpu.lock", "wheels-cuda.lock"]
    assert all(is_current(lock, channel=None) for lock in wheels)


def test_locks_of_other_processors_have_names_of_their_own() -> None:
    conda, wheels = locks_of(ENVIRONMENTS / "llm", "aarch64")

    assert conda.path.name == "conda-linux-aarch64.lock"
    assert [lock.path.name for lock in wheels] == ["wheels-cpu-aarch64.lock", "wheels-cuda-aarch64.lock"]
    with pytest.raises(BadInput, match="Name one of: x86_64, aarch64"):
        locks_of(ENVIRONMENTS / "llm", "riscv64")


def test_a_conda_layer_of_another_channel_is_not_current(tmp_path: Path) -> None:
    (tmp_path / "environment.yml").write_text("name: x\n")
    conda, _ = locks_of(tmp_path)
    conda.path.write_text(f"# platform: linux-64\n# channel: conda-forge\n# environment: {conda.made_from}\n")

    assert is_current(conda, channel="https://mirror.example/conda-forge/")
    assert not is_current(conda, channel="other")
