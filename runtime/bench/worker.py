"""One rank of one contestant's job: `python -m runtime.bench.worker SPEC`, started by torchrun."""

from __future__ import annotations

import gc
import json
import os
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
import torch.distributed as dist

from runtime.api import init_distributed
from runtime.bench.contest import MARK, Contestant, Sample, Workload
from runtime.bench.engines import Model, Trainer, build
from runtime.comm.group import Group, shutdown


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
