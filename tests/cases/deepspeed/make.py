"""Records checkpoints that DeepSpeed 0.19.8 itself saves, what it says is in them, and how it goes on.

In an environment of its own (torch 2.13.0 for CPUs, deepspeed 0.19.8), from the repository's root:

    DS_ACCELERATOR=cpu python -m tests.cases.deepspeed.make
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import deepspeed
import torch
import torch.distributed as dist
import torch.multiprocessing as processes
from deepspeed.accelerator import get_accelerator
from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

from tests.cases.deepspeed.small import RANKS, SEED, STEPS, VARIANTS, Small, batch, config_for, groups

HERE = Path(__file__).parent


def step(engine: Any, number: int) -> float:
    """One optimizer step; the mean loss over the ranks."""
    loss = engine(batch(number, dist.get_rank()))
    engine.backward(loss)
    engine.step()
    mean = loss.detach().float()
    dist.all_reduce(mean)
    return float(mean) / RANKS


def states(engine: Any) -> dict[str, dict[str, list[float]]]:
    """Whole masters and moments, as DeepSpeed's own functions gather them."""
    if hasattr(engine.optimizer, "_hp_optimizer_states_linked"):  # after the step of the first group
        engine.optimizer._hp_optimizer_states_linked = False
        engine.optimizer._lazy_init_hp_params_optimizer_state()
    found = {}
    for name, parameter in engine.module.named_parameters():
        if parameter.requires_grad:
            whole = {"master": safe_get_full_fp32_param(parameter)}
            for kind in ("exp_avg", "exp_avg_sq"):
                whole[kind] = safe_get_full_optimizer_state(parameter, kind)
            found[name] = {kind: value.flatten().tolist() for kind, value in whole.items()}
    return found


def record(name: str) -> dict[str, Any]:
    stage, changes = VARIANTS[name]
    torch.manual_seed(SEED)
    model = Small()
    fixed = {n: p.flatten().tolist() for n, p in model.named_parameters() if not p.requires_grad}
    engine, *_ = deepspeed.initialize(
        model=model, model_parameters=groups(model), config=config_for(stage, **changes)
    )
    losses = [step(engine, number) for number in range(STEPS)]
    engine.save_checkpoint(str(HERE / name), client_state={"seen": 12})
    found = {
        "stage": stage,
        "losses": losses,
        "fixed": fixed,
        "states": states(engine),
        "calls": int(engine.module.layers[0].calls),
        "loss_scale": float(getattr(engine.optimizer, "cur_scale", 1.0)) if "fp16" in changes else 1.0,
        "lr": [group["lr"] for group in engine.optimizer.param_groups],
    }
    found["after"] = [step(engine, number) for number in range(STEPS, 2 * STEPS)]
    engine.destroy()
    return found


def be_rank(rank: int, name: str, port: int) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(RANKS)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    torch.set_num_threads(1)
    get_accelerator().is_fp16_supported = lambda: True  # it asks for a processor that is fast at it
    deepspeed.init_distributed("gloo")
    found = record(name)
    if rank == 0:
        (HERE / name / "recorded.json").write_text(json.dumps(found) + "\n")
    dist.destroy_process_group()


def main() -> None:
    for number, name in enumerate(sys.argv[1:] or VARIANTS):
        shutil.rmtree(HERE / name, ignore_errors=True)
        processes.spawn(be_rank, (name, 29700 + number), nprocs=RANKS)
        for script in (HERE / name).glob("*.py"):  # what it copies beside each checkpoint
            script.unlink()


if __name__ == "__main__":
    main()
