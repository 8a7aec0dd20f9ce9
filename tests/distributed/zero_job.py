"""A small training in two forms: a plain loop in one process, and the engine. Same seed, batches, steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import Dataset

import runtime
from runtime.comm.group import shutdown
from runtime.topology import Topology
from runtime.train.data.sharded_loader import epoch_order

STEPS, SAMPLES, BATCH, WIDTH = 20, 96, 8, 12
SEED = 7


class Layer(nn.Module):
    """Sizes that no number of ranks divides, so that shards are uneven."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(WIDTH, 2 * WIDTH + 1)
        self.second = nn.Linear(2 * WIDTH + 1, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.second(torch.tanh(self.first(x)))


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(23, WIDTH)
        self.layers = nn.ModuleList(Layer() for _ in range(3))
        self.head = nn.Linear(WIDTH, 23, bias=False)
        self.head.weight = self.embed.weight  # tied

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        h = self.embed(x)
        for layer in self.layers:
            h = layer(h)
        return functional.cross_entropy(self.head(h).flatten(0, 1).float(), y.flatten())


class Samples(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(3)
        self.tokens = torch.randint(0, 23, (SAMPLES, 9), generator=generator)

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.tokens[index, :-1], self.tokens[index, 1:]


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What a training showed, step by step."""

    losses: list[float]
    norms: list[float]
    rates: list[float]


def config_for(stage: int, **changes: Any) -> dict[str, Any]:
    """Accumulation 2, clipping that bites, warm-up; the same global batch for every number of ranks."""
    return {
        "train_batch_size": BATCH,
        "gradient_accumulation_steps": 2,
        "gradient_clipping": 0.5,
        "zero_optimization": {"stage": stage},
        "optimizer": {"type": "AdamW", "params": {"lr": 0.01, "weight_decay": 0.1}},
        "scheduler": {
            "type": "WarmupDecayLR",
            "params": {"warmup_max_lr": 0.01, "warmup_num_steps": 5, "total_num_steps": 40},
        },
        "seed": SEED,
        **changes,
    }


def plain_loop(batch: int = BATCH) -> History:
    """What a person would write for one process, without any of our parts but the order of the data."""
    torch.manual_seed(SEED)
    model, samples = Model(), Samples()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    order = [index for epoch in range(3) for index in epoch_order(SAMPLES, SEED, epoch)]
    history = History(losses=[], norms=[], rates=[])
    for step in range(STEPS):
        rate = warm_up_then_decay(step - 1)
        for group in optimizer.param_groups:
            group["lr"] = rate
        picked = [samples[index] for index in order[step * batch : (step + 1) * batch]]
        loss = model(torch.stack([x for x, _ in picked]), torch.stack([y for _, y in picked]))
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        optimizer.zero_grad()
        history.losses.append(loss.item())
        history.norms.append(float(norm))
        history.rates.append(rate)
    return history


def warm_up_then_decay(iteration: int) -> float:
    """WarmupDecayLR of `config_for`, by hand."""
    if iteration < 5:
        return 0.01 * math.log(iteration + 1) / math.log(5) if iteration >= 0 else 0.0
    return 0.01 * (40 - iteration) / 35


def engine_loops(topology: Topology, configs: Sequence[Mapping[str, Any]]) -> list[History]:
    """The same with three lines changed, for each of the configurations."""
    group = runtime.init_distributed()
    histories = [_engine_loop(topology, config) for config in configs]
    shutdown(group)
    return histories


def _engine_loop(topology: Topology, config: Mapping[str, Any]) -> History:
    # The weights of every rank but the first begin as others, and must end up as the first's.
    torch.manual_seed(SEED if topology.is_first else 1000 + topology.rank)
    model = Model()
    engine, _, loader, _ = runtime.initialize(
        model=model, model_parameters=model.parameters(), training_data=Samples(), config=config
    )
    assert loader is not None
    history = History(losses=[], norms=[], rates=[])
    for _ in range(STEPS):
        history.rates.append(engine.get_lr()[0])
        history.losses.append(engine.train_batch().item())
        history.norms.append(engine.get_global_grad_norm() or 0.0)
    return history
