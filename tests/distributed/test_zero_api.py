"""What a script may pass and call: optimizers and schedules of its own, plain backward, batches by tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset

import runtime
from runtime.comm.group import shutdown
from runtime.errors import BadInput
from runtime.topology import Topology
from tests.distributed.conftest import Ranks
from tests.distributed.zero_job import SEED, Model, Samples, config_for

pytestmark = pytest.mark.distributed


def adamw(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.1)


def halves(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
    return torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)


def own_loop(as_objects: bool, plain_backward: bool) -> tuple[list[float], list[float]]:
    """Losses and learning rates of a script that brings its own optimizer and schedule."""
    torch.manual_seed(SEED)
    model = Model()
    optimizer: Any = adamw(model.parameters()) if as_objects else adamw
    schedule: Any = halves(optimizer) if as_objects else halves
    engine, used, loader, scheduler = runtime.initialize(
        model=model,
        optimizer=optimizer,
        lr_scheduler=schedule,
        training_data=Samples(),
        config=config_for(3, optimizer=None, scheduler=None),
    )
    assert loader is not None
    assert (used is optimizer and scheduler is schedule) or not as_objects
    losses, rates = [], []
    for _, (x, y) in zip(range(8), loader.forever(), strict=False):
        loss = engine(x, y)
        rates.append(engine.get_lr()[0])
        loss.backward() if plain_backward else engine.backward(loss)
        assert engine.is_gradient_accumulation_boundary() == (len(losses) % 2 == 1)
        engine.step()
        losses.append(loss.item())
    assert engine.global_steps == 4
    return losses, rates


def every_way(topology: Topology) -> list[tuple[list[float], list[float]]]:
    group = runtime.init_distributed()
    found = [own_loop(as_objects, plain) for as_objects in (False, True) for plain in (False, True)]
    shutdown(group)
    return found


def test_objects_callables_and_plain_backward_train_alike(ranks: Ranks) -> None:
    for found in ranks(every_way, 2):
        _, rates = found[0]
        assert all(other == found[0] for other in found)
        assert rates == pytest.approx([0.01, 0.01, 0.005, 0.005, 0.0025, 0.0025, 0.00125, 0.00125])


class Texts(Dataset[torch.Tensor]):
    """Sequences of 2 to 9 tokens."""

    def __len__(self) -> int:
        return 61

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.full((2 + index % 8,), index % 23)


def pad(samples: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    padded = torch.nn.utils.rnn.pad_sequence(samples, batch_first=True)
    return padded[:, :-1], padded[:, 1:]


TOKENS = {
    "enabled": True,
    "max_tokens": 40,
    "min_batch_size": 2,
    "max_batch_size": 12,
    "sequence_picking_order": "seqlen",
}


def by_tokens(topology: Topology, folder: str, again: bool) -> tuple[list[float], list[int]]:
    """Losses of steps 3 to 6, in one run or going on from a checkpoint, and tokens of every batch."""
    group = runtime.init_distributed()
    torch.manual_seed(SEED)
    sizes: list[int] = []

    def collate(samples: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        sizes.append(len(samples) * max(len(sample) for sample in samples))
        return pad(samples)

    sampling = {"enabled": True, "dynamic_batching": TOKENS}
    engine, *_ = runtime.initialize(
        model=Model(),
        training_data=Texts(),
        collate_fn=collate,
        config=config_for(2, data_efficiency={"enabled": True, "data_sampling": sampling}),
    )
    if again:
        engine.load_checkpoint(folder)
    else:
        for _ in range(2):
            engine.train_batch()
        engine.save_checkpoint(folder)
    losses = [engine.train_batch().item() for _ in range(4)]
    shutdown(group)
    return losses, sizes


def test_batches_by_tokens_train_and_resume_where_they_were(ranks: Ranks, tmp_path: Path) -> None:
    whole = ranks(by_tokens, 2, str(tmp_path), False)
    resumed = ranks(by_tokens, 2, str(tmp_path), True)

    assert [losses for losses, _ in resumed] == [losses for losses, _ in whole]
    assert {len(sizes) for _, sizes in whole} == {12}
    assert all(size <= 40 for _, sizes in whole for size in sizes)


def without_optimizer(topology: Topology, folder: str, stage: int) -> tuple[float, list[str]]:
    """A training saves, an engine without optimizer loads and computes; what that one refuses."""
    trained, *_ = runtime.initialize(model=Model(), config=config_for(stage))
    x, y = Samples()[0]
    trained.save_checkpoint(folder)
    config = config_for(stage, optimizer=None, scheduler=None)
    torch.manual_seed(SEED + 1)
    reference, optimizer, _, schedule = runtime.initialize(model=Model(), config=config)
    assert (optimizer, schedule, reference.get_lr()) == (None, None, [])
    reference.eval().load_checkpoint(folder)
    with torch.no_grad():
        difference = float(reference(x[None], y[None]) - trained.eval()(x[None], y[None]))
    refused = []
    for ask in (lambda: reference.backward(torch.ones(())), reference.step):
        with pytest.raises(BadInput) as caught:
            ask()
        refused.append(str(caught.value))
    reference.save_checkpoint(f"{folder}/again")
    with pytest.raises(BadInput, match="a scheduler, and no optimizer"):
        runtime.initialize(model=Model(), config=config_for(stage, optimizer=None))
    shutdown(trained.group)
    return difference, refused


@pytest.mark.parametrize("stage", [1, 3])
def test_an_engine_without_optimizer_computes_forwards(ranks: Ranks, tmp_path: Path, stage: int) -> None:
    for difference, refused in ranks(without_optimizer, 2, str(tmp_path), stage):
        assert difference == 0
        assert all("an engine without optimizer" in said for said in refused)
