"""`python -m runtime estimate`, run as a person runs it."""

from __future__ import annotations

import json
from pathlib import Path

from tests.unit.runtime.commands.test_commands import EXAMPLE, run

CASES = Path(__file__).parents[3] / "cases" / "estimate" / "models.json"
SIZES = f"{EXAMPLE.parent / 'sizes.py'}:gpt"


def model(tmp_path: Path, name: str) -> Path:
    case = next(case for case in json.loads(CASES.read_text()) if case["name"] == name)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(case["config"]))
    return path


def test_a_model_that_is_too_large_gets_advice_and_exit_1(tmp_path: Path) -> None:
    config = tmp_path / "ds_config.json"
    config.write_text('{"train_micro_batch_size_per_gpu": 1, "bf16": {"enabled": true}}')
    words = ("--config", config, "--nodes", "4", "--gpu-memory", "24GB")

    code, out = run("estimate", "--model", model(tmp_path, "Qwen2.5-14B"), *words)

    assert code == 1
    assert "14,770,033,664 parameters, 14,770,033,664 of them trained" in out
    keys = json.loads(out.splitlines()[-1])
    assert keys["zero_optimization"] == {"stage": 3, "offload_optimizer": {"device": "cpu"}}
    config.write_text(json.dumps({**json.loads(config.read_text()), **keys}))
    code, out = run("estimate", "--model", model(tmp_path, "Qwen2.5-14B"), *words)
    assert code == 0
    assert out.splitlines()[-1].startswith("fits: ")


def test_a_script_s_model_in_json() -> None:
    code, out = run(
        *("estimate", "--model", SIZES, "--config", EXAMPLE, "--nodes", "2", "--gpus-per-node", "2"),
        *("--gpu-memory", "1GB", "--seq-length", "64", "--micro-batch", "2", "--json"),
    )

    found = json.loads(out)
    assert code == 0
    assert found["model"]["parameters"] == 366_432
    assert found["settings"]["ranks"] == 4
    assert found["settings"]["micro_batch"] == 2
    assert found["estimate"]["device"]["optimizer"] == 8 * 366_432 // 4
    assert {(one["stage"], one["offload_optimizer"]) for one in found["variants"]} == {
        (0, "device"),
        *((stage, place) for stage in (1, 2, 3) for place in ("device", "cpu", "nvme")),
    }
