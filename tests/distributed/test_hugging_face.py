"""The Hugging Face Trainer and accelerate, unmodified, without DeepSpeed: losses beside its own, recorded.

The libraries are installed into a folder of the test's, beside the gate's torch: `long`. What the gate holds
of it is in test_zero_as_deepspeed.py and tests/unit/runtime/as_deepspeed/test_private_calls.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from runtime.as_deepspeed.finder import START
from runtime.as_deepspeed.reading import read_script
from tests.distributed.launching import free_port

pytestmark = [pytest.mark.distributed, pytest.mark.long]
ROOT = Path(__file__).parents[2]
CASES = ROOT / "tests" / "cases" / "hugging_face"
RECORDED = json.loads((CASES / "recorded.json").read_text())
# The newest of the index, and the one before the newest that was tried (5.24.0).
RELEASES = ["transformers", "transformers==5.23.0"]
WITH = ["accelerate", "peft", "tokenizers", "safetensors", "regex", "psutil"]
# Names of DeepSpeed's that they use where a feature is asked for that is not here.
NOT_HERE = {
    "deepspeed.ops.lion.DeepSpeedCPULion",
    "deepspeed.runtime.sequence_parallel.ulysses_sp.UlyssesSPAttentionHF",
    "deepspeed.runtime.sequence_parallel.ulysses_sp.UlyssesSPDataLoaderAdapter",
    "deepspeed.tp_model_init",
}


@pytest.fixture(scope="module", params=RELEASES)
def libraries(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the libraries of one release."""
    folder = tmp_path_factory.mktemp("libraries")
    words = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
    done = subprocess.run([*words, request.param, *WITH], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"{request.param} is not to be had here: {done.stderr.strip()[-300:]}")
    return folder


def environment(libraries: Path) -> dict[str, str]:
    path = os.pathsep.join([str(START), str(ROOT), str(libraries)])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def train(libraries: Path, out: Path, *words: str, ranks: int = 2) -> dict[str, Any]:
    """What the Trainer told: its steps and the last evaluation."""
    launcher = [
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        str(ranks),
        "--master-port",
        str(free_port()),
    ]
    argv = [sys.executable, *(launcher if ranks > 1 else []), str(CASES / "trainer.py"), str(out), *words]
    return run(argv, environment(libraries), out)


def run(argv: list[str], variables: dict[str, str], out: Path) -> dict[str, Any]:
    done = subprocess.run(argv, capture_output=True, text=True, env=variables, check=False, timeout=500)
    assert done.returncode == 0, done.stderr[-4000:]
    told: dict[str, Any] = json.loads((out / "told.json").read_text())
    return told


def close(told: dict[str, Any], expected: dict[str, Any]) -> None:
    """Losses and rates within 1e-5 in fp32; norms where both tell them."""
    assert len(told["steps"]) == len(expected["steps"])
    for mine, theirs in zip(told["steps"], expected["steps"], strict=True):
        assert mine[0] == theirs[0]
        assert mine[1] == pytest.approx(theirs[1], abs=1e-5)
        assert None in (mine[2], theirs[2]) or mine[2] == pytest.approx(theirs[2], abs=1e-5)
        assert mine[3] == pytest.approx(theirs[3], rel=1e-9)
    assert told["evaluated"] == pytest.approx(expected["evaluated"], abs=1e-5)


def expected_at(stage: int) -> dict[str, Any]:
    found: dict[str, Any] = next(case for case in RECORDED if case["name"] == f"stage-{stage}")
    return found


@pytest.mark.parametrize("case", RECORDED, ids=[case["name"] for case in RECORDED])
def test_losses_are_deepspeed_s(libraries: Path, tmp_path: Path, case: dict[str, Any]) -> None:
    close(train(libraries, tmp_path, *case["arguments"]), case)


@pytest.mark.parametrize("stage", [2, 3])
def test_offloading_changes_no_loss(libraries: Path, tmp_path: Path, stage: int) -> None:
    close(train(libraries, tmp_path, "--stage", str(stage), "--offload"), expected_at(stage))


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_a_resumed_training_goes_on_as_one_that_was_not_cut(
    libraries: Path, tmp_path: Path, stage: int
) -> None:
    """With the best model loaded at the end, which is whole."""
    words = ("--stage", str(stage), "--save", "10")
    train(libraries, tmp_path, *words, "--steps", "10")

    close(train(libraries, tmp_path, *words, "--resume"), expected_at(stage))
    assert weights(tmp_path / "final" / "model.safetensors") == 19_616


def weights(path: Path) -> int:
    """Elements in a safetensors file."""
    with path.open("rb") as stream:
        header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    sizes = [one["shape"] for name, one in header.items() if name != "__metadata__"]
    total = 0
    for shape in sizes:
        elements = 1
        for side in shape:
            elements *= side
        total += elements
    return total


def test_adapters_train_alike_in_every_stage_and_are_saved_alone(libraries: Path, tmp_path: Path) -> None:
    told = [
        train(libraries, tmp_path / str(stage), "--stage", str(stage), "--lora", "--steps", "5")
        for stage in (0, 2, 3)
    ]

    close(told[1], told[0])
    close(told[2], told[0])
    assert weights(tmp_path / "3" / "final" / "adapter_model.safetensors") == 896


def test_a_saved_model_is_loaded_at_stage_3_as_elsewhere(libraries: Path, tmp_path: Path) -> None:
    """transformers gives the values to rank 0 alone there, within zero.Init and GatheredParameters."""
    train(libraries, tmp_path / "first", "--stage", "3", "--steps", "5")
    start = ("--from-pretrained", str(tmp_path / "first" / "final"), "--steps", "5")

    told = [train(libraries, tmp_path / stage, "--stage", stage, *start) for stage in "23"]

    close(told[1], told[0])


def test_one_rank_needs_no_launcher(libraries: Path, tmp_path: Path) -> None:
    told = train(libraries, tmp_path, "--stage", "3", "--steps", "5", ranks=1)

    assert told["steps"][-1][1] < 4.25


def test_accelerate_launches_it(libraries: Path, tmp_path: Path) -> None:
    """`accelerate launch --use_deepspeed`, whose own process looks for DeepSpeed, and its children's."""
    words = [sys.executable, str(CASES / "trainer.py"), str(tmp_path), "--stage", "3", "--only-configuration"]
    subprocess.run(words, env=environment(libraries), check=True)
    config = tmp_path / "ds_config_0.json"
    launch = [
        "-m",
        "accelerate.commands.launch",
        "--use_deepspeed",
        "--num_processes",
        "2",
        "--num_machines",
        "1",
    ]
    meeting = ["--deepspeed_config_file", str(config), "--main_process_port", str(free_port())]
    script = [str(CASES / "trainer.py"), str(tmp_path), "--by-accelerate", "--stage", "3"]

    told = run([sys.executable, *launch, *meeting, *script], environment(libraries), tmp_path)

    close(told, expected_at(3))


def test_what_they_use_of_deepspeed_is_here_or_known_not_to_be(libraries: Path) -> None:
    """A release that asks for another name fails here, by that name."""
    found = set()
    for package in ("transformers", "accelerate", "peft"):
        for path in (libraries / package).rglob("*.py"):
            text = path.read_text()
            if "deepspeed" in text and "test_utils" not in path.parts:
                reading = read_script(text, engine_has=frozenset())
                found |= {one.name for one in reading.findings if one.name.startswith("deepspeed")}

    assert {name for name in found if not name.startswith(tuple(NOT_HERE))} == set()
