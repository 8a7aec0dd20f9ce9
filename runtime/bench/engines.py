"""The contestants as their users write them: one model, bf16, fp32 masters, AdamW."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from runtime.api import initialize
from runtime.bench.contest import OURS, Contestant, Workload
from runtime.comm.group import Group
from runtime.errors import BadInput

_LEARNING_RATE = 1e-3
_BETAS = (0.9, 0.999)
_OPTIMIZER = {"lr": _LEARNING_RATE, "betas": list(_BETAS), "eps": 1e-8, "weight_decay": 0.01}


class Model(nn.Module):
    """Embedding, encoder layers without dropout, output; returns the mean cross-entropy of its input."""

    def __init__(self, workload: Workload) -> None:
        super().__init__()
        self.embedding = nn.Embedding(workload.vocabulary, workload.width)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                workload.width, workload.width // 64, 4 * workload.width, dropout=0.0, batch_first=True
            )
            for _ in range(workload.depth)
        )
        self.output = nn.Linear(workload.width, workload.vocabulary, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Mean loss; `tokens` is (batch, sequence) of int64."""
        hidden = self.embedding(tokens)
        for layer in self.layers:
            hidden = layer(hidden)
        scores = self.output(hidden).float()
        return nn.functional.cross_entropy(scores.flatten(0, 1), tokens.flatten())


class Trainer(Protocol):
    """One engine: forward and backward of a micro-step, and the update after the last of a step."""

    def forward(self, tokens: torch.Tensor, *, last: bool) -> torch.Tensor: ...
    def backward(self, loss: torch.Tensor, *, last: bool) -> None: ...
    def update(self) -> None: ...


class _Ours:
    def __init__(self, model: Model, stage: int, workload: Workload, _group: Group) -> None:
        config = {
            "train_micro_batch_size_per_gpu": workload.micro_batch,
            "gradient_accumulation_steps": workload.accumulation,
            "bf16": {"enabled": True},
            "zero_optimization": {"stage": stage},
            "optimizer": {"type": "AdamW", "params": _OPTIMIZER},
        }
        self._engine, *_ = initialize(model=model, config=config)

    def forward(self, tokens: torch.Tensor, *, last: bool) -> torch.Tensor:
        loss: torch.Tensor = self._engine(tokens)
        return loss

    def backward(self, loss: torch.Tensor, *, last: bool) -> None:
        self._engine.backward(loss)
        if not last:
            self._engine.step()

    def update(self) -> None:
        self._engine.step()


class _Plain:
    """A wrapped module and a torch optimizer."""

    def __init__(self, module: nn.Module, workload: Workload) -> None:
        self._module = module
        self._accumulation = workload.accumulation
        self._optimizer = torch.optim.AdamW(
            module.parameters(), lr=_LEARNING_RATE, betas=_BETAS, weight_decay=0.01, fused=True
        )

    def forward(self, tokens: torch.Tensor, *, last: bool) -> torch.Tensor:
        loss: torch.Tensor = self._module(tokens)
        return loss

    def backward(self, loss: torch.Tensor, *, last: bool) -> None:
        (loss / self._accumulation).backward()  # type: ignore[no-untyped-call]

    def update(self) -> None:
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)


class _Ddp(_Plain):
    def __init__(self, model: Model, _stage: int, workload: Workload, _group: Group) -> None:
        self._wrapped = DistributedDataParallel(model, gradient_as_bucket_view=True)
        super().__init__(self._wrapped, workload)

    def forward(self, tokens: torch.Tensor, *, last: bool) -> torch.Tensor:
        self._wrapped.require_backward_grad_sync = last  # what no_sync() sets
        with torch.autocast(tokens.device.type, dtype=torch.bfloat16):
            return super().forward(tokens, last=last)


def _fsdp2(model: Model, stage: int, workload: Workload, _group: Group) -> Trainer:
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.bfloat16)
    for module in (*model.layers, model):
        fully_shard(module, mp_policy=policy, reshard_after_forward=stage == 3 and module is not model)
    return _Plain(model, workload)


class _DeepSpeed:
    def __init__(self, model: Model, stage: int, workload: Workload, _group: Group) -> None:
        try:
            import deepspeed
        except ImportError as e:
            raise BadInput(
                "compare with deepspeed",
                found=str(e),
                fix="Install it here, or name the Python that has it: --python deepspeed=PATH.",
            ) from e
        config = {
            "train_micro_batch_size_per_gpu": workload.micro_batch,
            "gradient_accumulation_steps": workload.accumulation,
            "bf16": {"enabled": True},
            "zero_optimization": {"stage": stage},
            # Its own CPU Adam is built with a compiler at the first use; torch's is what both then use.
            "optimizer": {"type": "AdamW", "params": {**_OPTIMIZER, "torch_adam": True}},
        }
        self._engine, *_ = deepspeed.initialize(
            model=model, model_parameters=list(model.parameters()), config=config
        )

    def forward(self, tokens: torch.Tensor, *, last: bool) -> torch.Tensor:
        loss: torch.Tensor = self._engine(tokens)
        return loss

    def backward(self, loss: torch.Tensor, *, last: bool) -> None:
        self._engine.backward(loss)
        if not last:
            self._engine.step()

    def update(self) -> None:
        self._engine.step()


_MAKERS: Mapping[str, Callable[[Model, int, Workload, Group], Trainer]] = {
    OURS: _Ours,
    "ddp": _Ddp,
    "fsdp2": _fsdp2,
    "deepspeed": _DeepSpeed,
}


def build(contestant: Contestant, model: Model, workload: Workload, group: Group) -> Trainer:
    """Puts a model under a contestant's control."""
    return _MAKERS[contestant.engine](model, contestant.stage, workload, group)
