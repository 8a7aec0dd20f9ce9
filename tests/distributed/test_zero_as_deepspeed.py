"""The engine as accelerate and scripts of DeepSpeed's drive it, against plain torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from runtime.as_deepspeed.initialize import DeepSpeedConfig, Init, init_distributed, initialize
from runtime.errors import BadInput
from runtime.topology import Topology
from runtime.train.checkpoint.whole import (
    convert_zero_checkpoint_to_fp32_state_dict,
    get_fp32_state_dict_from_zero_checkpoint,
    load_state_dict_from_zero_checkpoint,
)
from runtime.train.optim.adam import FusedAdam
from runtime.train.parallel.whole import GatheredParameters
from tests.distributed.conftest import Ranks
from tests.distributed.zero_job import SEED, Model, Samples

pytestmark = pytest.mark.distributed
ACCUMULATE, STEPS, WORLD = 2, 3, 2


def config_of(stage: int) -> dict[str, Any]:
    return {
        "train_micro_batch_size_per_gpu": 2,
        "gradient_accumulation_steps": ACCUMULATE,
        "gradient_clipping": 1.0,
        "zero_optimization": {"stage": stage, "stage3_gather_16bit_weights_on_model_save": True},
        "steps_per_print": float("inf"),
    }


def batch(step: int, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    samples = Samples()
    first = (step * WORLD + rank) * 2
    pairs = [samples[first], samples[first + 1]]
    return torch.stack([x for x, _ in pairs]), torch.stack([y for _, y in pairs])


def plain() -> tuple[dict[str, torch.Tensor], float]:
    """The same steps over all ranks' samples in one process: weights, and the last norm before clipping."""
    norm = 0.0
    torch.manual_seed(SEED)
    model = Model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.0)
    for step in range(STEPS):
        for micro in range(ACCUMULATE):
            for rank in range(WORLD):
                loss = model(*batch(step * ACCUMULATE + micro, rank))
                (loss / ACCUMULATE / WORLD).backward()
        norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0))
        optimizer.step()
        optimizer.zero_grad()
    return model.state_dict(), norm


def as_accelerate(topology: Topology, folder: Path) -> list[dict[str, Any]]:
    """Sets the boundary, backward, and steps at the boundary only; then what a save asks."""
    init_distributed("gloo", auto_mpi_discovery=False)
    found = []
    for stage in range(4):
        torch.manual_seed(SEED)
        model = Model()
        optimizer = FusedAdam(model.parameters(), lr=0.01)
        engine, *_ = initialize(model=model, optimizer=optimizer, config_params=config_of(stage))
        for number in range(STEPS * ACCUMULATE):
            is_last = number % ACCUMULATE == ACCUMULATE - 1
            loss = engine(*batch(number, topology.rank))
            engine.set_gradient_accumulation_boundary(is_boundary=is_last)
            engine.backward(loss / ACCUMULATE, scale_wrt_gas=False)
            if is_last:
                engine.step()
        whole = engine._zero3_consolidated_16bit_state_dict()
        engine.save_16bit_model(folder / f"whole{stage}")
        engine.save_checkpoint(str(folder / f"zero{stage}"), "one", exclude_frozen_parameters=False)
        path, _ = engine.load_checkpoint(str(folder / f"zero{stage}"), load_module_strict=True)
        found.append(
            {
                "whole": whole and {name: value.tolist() for name, value in whole.items()},
                "norm": engine.get_global_grad_norm(),
                "gathers": engine.zero_gather_16bit_weights_on_model_save(),
                "places": (engine.global_rank, engine.local_rank, engine.world_size),
                "steps": engine.global_steps,
                "loaded": path,
            }
        )
        engine.destroy()
    return found


def test_accelerate_s_way_of_stepping_is_plain_torch_s(ranks: Ranks, tmp_path: Path) -> None:
    expected, norm = plain()

    first, second = ranks(as_accelerate, WORLD, tmp_path)

    for stage, (mine, theirs) in enumerate(zip(first, second, strict=True)):
        assert theirs["whole"] is None
        assert mine["whole"].keys() == expected.keys()
        for name, value in expected.items():
            assert torch.allclose(torch.tensor(mine["whole"][name]), value, atol=1e-6), (stage, name)
        assert mine["norm"] == pytest.approx(norm, rel=1e-5)
        assert theirs["norm"] == pytest.approx(norm, rel=1e-5)
        assert mine["gathers"]
        assert (mine["places"], theirs["places"]) == ((0, 0, 2), (1, 1, 2))
        assert (mine["steps"], theirs["steps"]) == (STEPS, STEPS)
        assert mine["loaded"] == theirs["loaded"]
        written = torch.load(tmp_path / f"whole{stage}" / "pytorch_model.bin", weights_only=True)
        assert {name: value.tolist() for name, value in written.items()} == mine["whole"]
        again = get_fp32_state_dict_from_zero_checkpoint(tmp_path / f"zero{stage}")
        assert all(mine["whole"][name] == value.tolist() for name, value in again.items())
        filled = load_state_dict_from_zero_checkpoint(Model(), tmp_path / f"zero{stage}", tag="one")
        assert filled.state_dict()["head.weight"].tolist() == mine["whole"]["head.weight"]
        files = tmp_path / f"files{stage}"
        convert_zero_checkpoint_to_fp32_state_dict(tmp_path / f"zero{stage}", files, max_shard_size="300B")
        assert len(list(files.glob("*.safetensors"))) > 1
        with pytest.raises(BadInput, match="runs code when it is read"):
            convert_zero_checkpoint_to_fp32_state_dict(
                tmp_path / f"zero{stage}", tmp_path / "pickled", safe_serialization=False
            )


def built_within_init(topology: Topology) -> tuple[list[float], int]:
    """As transformers loads at stage 3: rank 0 alone has the values, the others get them."""
    with Init(config_dict_or_path=config_of(3)):
        model = torch.nn.Linear(2, 2)
    with GatheredParameters([model.weight], modifier_rank=0), torch.no_grad():
        if topology.is_first:
            model.weight.fill_(5.0)
    found = [float(value) for value in model.weight.flatten()]
    return found, DeepSpeedConfig(config_of(3)).train_batch_size


def test_what_rank_0_puts_into_parameters_is_on_all_ranks(ranks: Ranks) -> None:
    assert ranks(built_within_init, WORLD) == [([5.0] * 4, 8)] * WORLD


class TwoOfATensor:
    def get_model_parallel_world_size(self) -> int:
        return 2


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ({"mpu": TwoOfATensor()}, "tensor parallelism is not implemented here"),
        ({"mesh_param": (1, 2)}, "sequence parallelism is not implemented here"),
    ],
)
def test_parallelism_of_other_kinds_is_refused_before_anything_is_done(named: Any, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        initialize(model=torch.nn.Linear(1, 1), config=config_of(0), **named)


def refused(_: Topology) -> list[str]:
    engine, *_rest = initialize(
        model=torch.nn.Linear(1, 1), config={**config_of(1), "optimizer": {"type": "AdamW"}}
    )
    calls: list[Any] = [
        lambda: engine.load_checkpoint("x", custom_load_fn=print),
        lambda: init_distributed(init_method="tcp://host:1") or init_distributed(),
    ]
    found = []
    for call in calls:
        try:
            call()
            found.append("")
        except BadInput as e:
            found.append(e.asked)
    return found


def test_what_the_engine_cannot_do_is_refused_by_name(ranks: Ranks) -> None:
    assert ranks(refused, 1) == [
        [
            "load with a function of the script's (custom_load_fn)",
            "",  # the group is there
        ]
    ]


def asked(_: Topology) -> list[str]:
    engine, *_rest = initialize(model=torch.nn.Linear(1, 1), config=config_of(0))
    found = []
    for name in ("monitor", "nothing_of_anybody"):
        try:
            getattr(engine, name)
        except AttributeError as e:
            found.append(str(e))
    assert engine.weight is engine.module.weight
    return found


def test_a_name_of_deepspeed_s_engine_that_is_not_here_is_told(ranks: Ranks) -> None:
    [[first, second]] = ranks(asked, 1)

    assert first == "the engine's monitor of DeepSpeed is not here: see docs/from_deepspeed.md"
    assert "nothing_of_anybody" in second
