"""Records what DeepSpeed shows on the parity test's training, with the Python of an environment that has it:

DS_ACCELERATOR=cpu python -m torch.distributed.run --nproc-per-node 2 -m tests.cases.parity.record
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from runtime.train.data.sharded_loader import epoch_order, share
from tests.distributed.zero_job import BATCH, SAMPLES, SEED, STEPS, Model, Samples, config_for

TARGET = Path(__file__).with_name("deepspeed_0_19_8.json")


def train(stage: int, bf16: bool) -> dict[str, Any]:
    import deepspeed

    torch.manual_seed(SEED)
    model, samples = Model(), Samples()
    config = config_for(stage, **({"bf16": {"enabled": True}} if bf16 else {}))
    config["optimizer"]["params"]["torch_adam"] = True  # its own is built with a compiler
    engine, *_ = deepspeed.initialize(model=model, model_parameters=model.parameters(), config=config)
    rank, ranks, micro = dist.get_rank(), dist.get_world_size(), engine.train_micro_batch_size_per_gpu()
    order = [index for epoch in range(3) for index in epoch_order(SAMPLES, SEED, epoch)]
    found: dict[str, Any] = {"stage": stage, "bf16": bf16, "losses": [], "norms": [], "rates": []}
    for step in range(STEPS):
        found["rates"].append(engine.get_lr()[0])
        total = torch.zeros(())
        for start in range(step * BATCH, (step + 1) * BATCH, micro * ranks):
            picked = [samples[index] for index in share(order, start, micro, rank, ranks)]
            loss = engine(torch.stack([x for x, _ in picked]), torch.stack([y for _, y in picked]))
            engine.backward(loss)
            engine.step()
            total += loss.detach().float() * micro * ranks / BATCH
        dist.all_reduce(total)
        found["losses"].append(total.item() / ranks)
        found["norms"].append(float(engine.get_global_grad_norm()))
    return found


def main() -> None:
    import deepspeed

    torch.set_num_threads(1)
    deepspeed.init_distributed()
    runs = [train(stage, bf16) for stage in (1, 2, 3) for bf16 in (False, True)]
    source = (
        f"deepspeed {deepspeed.__version__} with torch 2.13.0 on {dist.get_world_size()} gloo ranks: {STEPS} "
        "steps of tests/distributed/zero_job.py, config_for(stage) and torch_adam true, by record.py"
    )
    if dist.get_rank() == 0:
        TARGET.write_text(json.dumps({"source": source, "runs": runs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
