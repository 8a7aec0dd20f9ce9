"""One rank of a small job that saves, is struck, or loads: with this project, bare DCP or DeepSpeed.

Started by tests/bench/bench_checkpoint_faults.py.
"""

from __future__ import annotations

import json
import os
import resource
import signal
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import nn

WIDTH, LAYERS = 64, 4
MOMENTS = ("exp_avg", "exp_avg_sq")
KILLED_AT_BYTES = 20_000  # of a file: in the middle of a shard


class System(Protocol):
    """What a script does with checkpoints, in the words of each."""

    def step(self, batch: torch.Tensor) -> None: ...
    def save(self, root: Path, tag: str) -> None: ...
    def load(self, root: Path) -> object: ...
    def weights(self) -> torch.Tensor:
        """Weights and moments, whole."""
        ...


def build(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(*(nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS)))


class Ours:
    def __init__(self, model: nn.Module) -> None:
        import runtime

        runtime.init_distributed(timeout_seconds=30)
        config = {
            "train_micro_batch_size_per_gpu": 2,
            "zero_optimization": {"stage": 3},
            "optimizer": {"type": "AdamW", "params": {"lr": 0.01}},
        }
        self.engine = runtime.initialize(model=model, config=config)[0]

    def step(self, batch: torch.Tensor) -> None:
        self.engine.backward(self.engine(batch).square().mean())
        self.engine.step()

    def save(self, root: Path, tag: str) -> None:
        self.engine.save_checkpoint(root, tag)

    def load(self, root: Path) -> object:
        return self.engine.load_checkpoint(root)[0]

    def weights(self) -> torch.Tensor:
        return whole(self.engine.module, self.engine.optimizer)


class Dcp:
    """PyTorch's own, on FSDP2, as its tutorial has it; loads the folder of the highest step."""

    def __init__(self, model: nn.Module) -> None:
        from torch.distributed.fsdp import fully_shard

        dist.init_process_group("gloo")
        mesh = dist.init_device_mesh("cpu", (dist.get_world_size(),))
        for layer in model.children():
            fully_shard(layer, mesh=mesh)
        self.model = fully_shard(model, mesh=mesh)
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)

    def step(self, batch: torch.Tensor) -> None:
        self.model(batch).square().mean().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def save(self, root: Path, tag: str) -> None:
        from torch.distributed import checkpoint

        checkpoint.save(self._states(), checkpoint_id=root / tag)

    def load(self, root: Path) -> object:
        from torch.distributed import checkpoint
        from torch.distributed.checkpoint.state_dict import set_state_dict

        states = self._states()
        newest = max(root.iterdir())
        checkpoint.load(states, checkpoint_id=newest)
        set_state_dict(
            self.model, self.optimizer, model_state_dict=states["model"], optim_state_dict=states["optimizer"]
        )
        return newest

    def weights(self) -> torch.Tensor:
        return whole(self.model, self.optimizer)

    def _states(self) -> dict[str, Any]:
        from torch.distributed.checkpoint.state_dict import get_state_dict

        model, optimizer = get_state_dict(self.model, self.optimizer)
        return {"model": model, "optimizer": optimizer}


class DeepSpeed:
    def __init__(self, model: nn.Module) -> None:
        import deepspeed

        deepspeed.init_distributed("gloo")
        config = {
            "train_micro_batch_size_per_gpu": 2,
            "zero_optimization": {"stage": 3},
            "optimizer": {"type": "AdamW", "params": {"lr": 0.01, "torch_adam": True}},
        }
        self.engine = deepspeed.initialize(model=model, model_parameters=model.parameters(), config=config)[0]

    def step(self, batch: torch.Tensor) -> None:
        self.engine.backward(self.engine(batch).square().mean())
        self.engine.step()

    def save(self, root: Path, tag: str) -> None:
        self.engine.save_checkpoint(str(root), tag)

    def load(self, root: Path) -> object:
        return self.engine.load_checkpoint(str(root))[0]

    def weights(self) -> torch.Tensor:
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        parameters = list(self.engine.module.parameters())
        whole = [safe_get_full_fp32_param(p) for p in parameters]
        whole += [safe_get_full_optimizer_state(p, kind) for p in parameters for kind in MOMENTS]
        return torch.cat([tensor.flatten() for tensor in whole])


SYSTEMS: dict[str, type[Ours | Dcp | DeepSpeed]] = {"clusterwright": Ours, "dcp": Dcp, "deepspeed": DeepSpeed}


def whole(model: nn.Module, optimizer: torch.optim.Optimizer) -> torch.Tensor:
    tensors: list[Any] = list(model.parameters())
    tensors += [optimizer.state[p][kind] for p in model.parameters() for kind in MOMENTS]
    return torch.cat([tensor.full_tensor().detach().flatten() for tensor in tensors])


def train_and_save(system: System, job: dict[str, Any]) -> None:
    """Steps to each tag's number, and saves; the true weights go beside, for the judge."""
    done = 0
    for tag, number in job["saves"]:
        while done < number:
            done += 1
            system.step(torch.full((2, WIDTH), 1.0 / done))
        truth = system.weights()
        if dist.get_rank() == 0:
            torch.save(truth, Path(job["truths"]) / f"{job['name']} step {number}.pt")
        if (tag, number) == job["saves"][-1] and job.get("killed") == dist.get_rank():
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # the kernel ends the rank in the middle of a file
            resource.setrlimit(resource.RLIMIT_FSIZE, (KILLED_AT_BYTES, KILLED_AT_BYTES))
        system.save(Path(job["root"]), tag)


def load(system: System, job: dict[str, Any]) -> None:
    """Says which of the true weights were loaded, if any."""
    loaded = system.load(Path(job["root"]))
    found = system.weights()
    if dist.get_rank() == 0:
        truths = {
            path.stem: torch.load(path, weights_only=True) for path in sorted(Path(job["truths"]).iterdir())
        }
        same = [name for name, truth in truths.items() if torch.equal(truth, found)]
        say("LOADED " + json.dumps({"loaded": loaded and Path(str(loaded)).name, "weights": same[:1]}))


def be_rank(variables: dict[str, str], job: dict[str, Any], log: str) -> None:
    """A process that does its part of a job; all that it says goes into the log."""
    descriptor = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.environ |= variables
    torch.set_num_threads(1)
    status = 0
    try:
        system = SYSTEMS[job["system"]](build(job["seed"]))
        (train_and_save if "saves" in job else load)(system, job)
    except BaseException as e:  # DCP's error is none of Exception's
        say(f"FAILED {type(e).__name__}: {' '.join(str(e).split())}")
        status = 1
    os._exit(status)  # how the systems end is not measured


def say(line: str) -> None:
    """A line of its own in the log."""
    os.write(1, f"\n{line}\n".encode())
