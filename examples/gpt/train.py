"""Trains a small GPT over all ranks from a ds_config.json; plain.py with three lines changed.

zerorun examples/gpt/train.py --deepspeed_config examples/gpt/ds_config.json
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from metrics import Metrics
from model import Gpt, Shape
from options import parser
from text import Windows

import runtime


def main() -> None:
    options = runtime.add_config_arguments(parser("Trains a small GPT over all ranks."))
    options.add_argument("--checkpoints", help="folder to save to and continue from")
    options.add_argument("--save-every", type=int, default=10, help="steps between two checkpoints")
    arguments = options.parse_args()
    torch.manual_seed(arguments.seed)
    shape = Shape(layers=arguments.layers, width=arguments.width)
    model = Gpt(shape)
    windows = Windows(arguments.text, shape.context)
    engine, _, loader, _ = runtime.initialize(
        args=arguments, model=model, model_parameters=model.parameters(), training_data=windows
    )
    if arguments.checkpoints:
        engine.load_checkpoint(arguments.checkpoints)
    first = engine.global_steps + 1
    batches = loader.forever()
    metrics = Metrics(
        arguments.metrics, samples_per_step=engine.train_batch_size(), speak=dist.get_rank() == 0
    )

    for step in range(first, arguments.steps + 1):
        rate = engine.get_lr()[0]
        total = torch.zeros((), device=engine.device)
        for _ in range(engine.gradient_accumulation_steps()):
            inputs, targets = (tensor.to(engine.device) for tensor in next(batches))
            loss = engine(inputs, targets)
            engine.backward(loss)
            engine.step()
            total += loss.detach()
        mean = total / engine.gradient_accumulation_steps()
        dist.all_reduce(mean)
        metrics.step(
            step,
            loss=mean.item() / dist.get_world_size(),
            grad_norm=engine.get_global_grad_norm() or 0.0,
            lr=rate,
        )
        if arguments.checkpoints and step % arguments.save_every == 0:
            engine.save_checkpoint(arguments.checkpoints)
    engine.wait_for_checkpoint()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
