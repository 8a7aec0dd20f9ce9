"""One rank of one contestant's job: `python -m runtime.bench.worker SPEC`, started by torchrun.

The contestants are as their users write them: one model, bf16, fp32 masters, AdamW.
"""

from __future__ import annotations

import gc
import json
import os
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from runtime.api import init_distributed, initialize
from runtime.bench.contest import MARK, OURS, Contestant, Sample, Workload
from runtime.comm.group import Group, shutdown
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


class _Configured:
    """An engine that is made of a ds_config.json, ours or DeepSpeed's."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def forward(self, tokens: torch.Tensor, *, last: bool) -> torch.Tensor:
        loss: torch.Tensor = self._engine(tokens)
        return loss

    def backward(self, loss: torch.Tensor, *, last: bool) -> None:
        self._engine.backward(loss)
        if not last:
            self._engine.step()

    def update(self) -> None:
        self._engine.step()


def _config(stage: int, workload: Workload, **of_adam: bool) -> dict[str, Any]:
    return {
        "train_micro_batch_size_per_gpu": workload.micro_batch,
        "gradient_accumulation_steps": workload.accumulation,
        "bf16": {"enabled": True},
        "zero_optimization": {"stage": stage},
        "optimizer": {"type": "AdamW", "params": {**_OPTIMIZER, **of_adam}},
    }


def _ours(model: Model, stage: int, workload: Workload, _group: Group) -> Trainer:
    return _Configured(initialize(model=model, config=_config(stage, workload))[0])


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


def _deepspeed(model: Model, stage: int, workload: Workload, _group: Group) -> Trainer:
    try:
        import deepspeed
    except ImportError as e:
        raise BadInput(
            "compare with deepspeed",
            found=str(e),
            fix="Install it here, or name the Python that has it: --python deepspeed=PATH.",
        ) from e
    # Its own CPU Adam is built with a compiler at the first use; torch's is what both then use.
    config = _config(stage, workload, torch_adam=True)
    parameters = list(model.parameters())
    return _Configured(deepspeed.initialize(model=model, model_parameters=parameters, config=config)[0])


_MAKERS: Mapping[str, Callable[[Model, int, Workload, Group], Trainer]] = {
    OURS: _ours,
    "ddp": _Ddp,
    "fsdp2": _fsdp2,
    "deepspeed": _deepspeed,
}


def build(contestant: Contestant, model: Model, workload: Workload, group: Group) -> Trainer:
    """Puts a model under a contestant's control."""
    return _MAKERS[contestant.engine](model, contestant.stage, workload, group)


def main(arguments: Sequence[str]) -> None:
    """Measures, and writes one marked line of JSON from the first rank."""
    spec = json.loads(arguments[0])
    contestant, workload = Contestant(**spec["contestant"]), Workload(**spec["workload"])
    group = init_distributed()
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // group.topology.local_world_size))
    sample = measure(contestant, workload, group)
    if group.topology.is_first:
        os.write(1, f"{MARK}{json.dumps(asdict(sample))}\n".encode())
    shutdown(group)


def measure(contestant: Contestant, workload: Workload, group: Group) -> Sample:
    """Trains a few steps; the values of the rank with most."""
    before = _live_bytes()
    memory = _Memory(group.device)
    torch.manual_seed(0)
    model = Model(workload).to(group.device)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    trainer = build(contestant, model, workload, group)
    seconds, processor, state, loss = _train(trainer, workload, group, before)
    return Sample(
        parameters=parameters,
        seconds=seconds[workload.warm_up :],
        processor_seconds=processor[workload.warm_up :],
        state_bytes=int(_largest(state, group)),
        peak_bytes=int(_largest(memory.growth(), group)),
        loss=_largest(loss, group),
    )


def _train(
    trainer: Trainer, workload: Workload, group: Group, before: int
) -> tuple[list[float], list[float], int, float]:
    generator = torch.Generator().manual_seed(1 + group.topology.rank)
    shape = (workload.micro_batch, workload.sequence)
    tokens = torch.randint(workload.vocabulary, shape, generator=generator).to(group.device)
    seconds: list[float] = []
    processor: list[float] = []
    state = 0
    for number in range(workload.warm_up + workload.steps):
        dist.barrier()
        started, computed = time.perf_counter(), time.process_time()
        for micro_step in range(workload.accumulation):
            last = micro_step == workload.accumulation - 1
            loss = trainer.forward(tokens, last=last)
            if last and number == workload.warm_up - 1:
                state = _live_bytes()
            trainer.backward(loss, last=last)
        if number == workload.warm_up - 1:
            state = max(state, _live_bytes())
        trainer.update()
        seconds.append(_now(group) - started)
        processor.append(time.process_time() - computed)
    return seconds, processor, state - before - tokens.numel() * tokens.element_size(), float(loss.detach())


def _now(group: Group) -> float:
    if group.device.type == "cuda":
        torch.cuda.synchronize(group.device)
    return time.perf_counter()


def _live_bytes() -> int:
    """Bytes of all storages that a tensor known to Python holds, but for what a forward computed."""
    gc.collect()
    storages: dict[int, int] = {}
    for found in gc.get_objects():
        if isinstance(found, torch.Tensor) and found.grad_fn is None:
            for tensor in (found, found.grad if found.is_leaf else None):
                _add(tensor, storages)
    return sum(storages.values())


def _add(tensor: torch.Tensor | None, storages: dict[int, int]) -> None:
    if tensor is None:
        return
    local = getattr(tensor, "_local_tensor", tensor)
    if local.device.type != "meta" and local.layout is torch.strided:
        storage = local.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()


class _Memory:
    """Growth of a process's memory from now to its peak, as the kernel (on a GPU: the allocator) counts."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self._begin = torch.cuda.memory_allocated(device)
        else:
            Path("/proc/self/clear_refs").write_text("5")  # proc(5): VmHWM begins anew
            self._begin = _status_bytes("VmRSS")

    def growth(self) -> int:
        """Bytes at the peak beyond those at the beginning."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) - self._begin
        return _status_bytes("VmHWM") - self._begin


def _status_bytes(name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _largest(value: float, group: Group) -> float:
    largest = torch.tensor([value], dtype=torch.float64, device=group.device)
    dist.all_reduce(largest, op=dist.ReduceOp.MAX)
    return float(largest)


if __name__ == "__main__":
    main(sys.argv[1:])
