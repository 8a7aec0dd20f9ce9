"""Trains a small GPT in one process with plain PyTorch: what train.py is compared with.

python examples/gpt/plain.py --metrics plain.jsonl
"""

from __future__ import annotations

import torch
from metrics import Metrics
from model import Gpt, Shape
from options import parser
from text import Windows
from torch.utils.data import DataLoader, RandomSampler

BATCH, LEARNING_RATE, WARM_UP = 16, 1e-3, 4


def main() -> None:
    arguments = parser("Trains a small GPT in one process.").parse_args()
    torch.manual_seed(arguments.seed)
    shape = Shape(layers=arguments.layers, width=arguments.width)
    model = Gpt(shape)
    windows = Windows(arguments.text, shape.context)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, eps=1e-8, weight_decay=0.0)
    # WarmupLR of ds_config.json: up along a logarithm, from 0 and in its second step still there.
    curve = torch.tensor([1.0, 1.0, *range(2, WARM_UP + 1)]).log() / torch.tensor(float(WARM_UP)).log()
    shuffled = RandomSampler(windows, generator=torch.Generator().manual_seed(42))
    batches = iter(DataLoader(windows, batch_size=BATCH, sampler=shuffled, drop_last=True))
    metrics = Metrics(arguments.metrics, samples_per_step=BATCH, speak=True)

    for step in range(1, arguments.steps + 1):
        rate = LEARNING_RATE * float(curve[min(step - 1, WARM_UP)])
        for group in optimizer.param_groups:
            group["lr"] = rate
        inputs, targets = next(batches)
        loss = model(inputs, targets)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        metrics.step(step, loss=loss.item(), grad_norm=norm.item(), lr=rate)


if __name__ == "__main__":
    main()
