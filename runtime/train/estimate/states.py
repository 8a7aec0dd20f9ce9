"""Bytes of one rank: what this runtime's engine holds at the peak of a backward. Pure arithmetic.

With Psi trained parameters over N ranks and c bytes in the compute type, Adam:

  stage 0  c Psi gathered + 4 Psi masters + gradients + 8 Psi moments
  stage 1  c Psi gathered + 4 Psi/N masters + whole gradients while micro-steps accumulate + 8 Psi/N moments
  stage 2  c Psi gathered + (4 + c + 8) Psi/N; with one micro-step in a step (4 + 4 + 8) Psi/N
  stage 3  root and two blocks gathered + (4 + 4 + 8) Psi/N

Stage 2 keeps gradient shards in the compute type until its micro-steps are done. They become fp32 in the
update, once what was gathered is freed. Stages 1 and 2 gather again after it, and hold that until the next.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from runtime.train.config import Config
from runtime.train.config.training import Adam, Sgd
from runtime.train.offload.layout import LARGEST_GROUP

_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}
_MASTER, _GRADIENT, _MOMENT = 4, 4, 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Activations:
    """Bytes that autograd keeps for one sample: of one block, of one block's input, and outside of blocks."""

    block: int
    block_input: int
    outside: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """Numbers of parameters (tied ones once), and activations by the bytes of the compute type, 2 or 4.

    `block` is of the largest block that travels as one, `root` of what belongs to none; `block_trained`
    counts those of the block that need a gradient. `activations_from` says how activations were found.
    """

    name: str
    trained: int
    frozen: int
    blocks: int
    block: int
    block_trained: int
    root: int
    buffer_bytes: int
    activations: Mapping[int, Activations]
    activations_from: str

    @property
    def parameters(self) -> int:
        """All of them."""
        return self.trained + self.frozen


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What of a configuration decides over memory. `moments` is how many the optimizer keeps."""

    ranks: int
    stage: int
    compute_bytes: int
    reduce_bytes: int
    micro_batch: int
    accumulation: int
    moments: int
    recompute: bool = False
    inputs_in_host: bool = False
    offload_optimizer: str = "none"
    offload_param: str = "none"
    hpz: int = 1
    sub_group_size: int = 1_000_000_000
    buffer_count: int = 4
    waiting_bytes: int = 4

    @classmethod
    def from_config(cls, config: Config, ranks: int) -> Settings:
        """The settings of a configuration that was resolved for these ranks."""
        zero, again = config.zero_optimization, config.activation_checkpointing
        compute = 2 if config.fp16.enabled or config.bf16.enabled else 4
        travels = config.communication_data_type
        return cls(
            ranks=ranks,
            stage=zero.stage,
            compute_bytes=compute,
            reduce_bytes=_BYTES[travels] if travels else compute,
            micro_batch=config.train_micro_batch_size_per_gpu or 1,
            accumulation=config.gradient_accumulation_steps or 1,
            moments=_moments(config),
            recompute=again is not None and again.enabled,
            inputs_in_host=again is not None and again.enabled and again.cpu_checkpointing,
            offload_optimizer=zero.offload_optimizer.device,
            offload_param=zero.offload_param.device,
            hpz=zero.zero_hpz_partition_size,
            sub_group_size=zero.sub_group_size,
            buffer_count=zero.offload_optimizer.buffer_count,
            waiting_bytes=_BYTES[config.shards_wait_in],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Bytes in one place, by what they hold; parameters are masters and frozen weights, as shards."""

    parameters: int = 0
    gathered: int = 0
    gradients: int = 0
    optimizer: int = 0
    activations: int = 0
    buffers: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return (
            self.parameters
            + self.gathered
            + self.gradients
            + self.optimizer
            + self.activations
            + self.buffers
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Bytes of one rank on its device, in its host's memory, and on its disk."""

    device: Parts
    host: Parts
    disk: Parts


def estimate(model: Model, settings: Settings) -> Estimate:
    """What one rank holds at the peak of an optimizer step."""
    shards = settings.ranks if settings.stage else 1
    compute = settings.compute_bytes
    masters = _share(_MASTER * model.trained, shards)
    frozen = _share(compute * model.frozen, shards)
    moments = _share(_MOMENT * settings.moments * model.trained, shards)
    whole, share = _gradients(model, settings, shards)
    kept, away = _activations(model, settings)
    gathered = _gathered(model, settings)
    buffers = model.buffer_bytes + _passing(model, settings, kept)
    if settings.offload_optimizer == "none" and settings.offload_param == "none":
        device = Parts(
            parameters=masters + frozen,
            gathered=gathered,
            gradients=max(whole, share),
            optimizer=moments,
            activations=kept,
            buffers=buffers,
        )
        return Estimate(device=device, host=Parts(activations=away), disk=Parts())
    device = Parts(gathered=gathered, gradients=whole, activations=kept, buffers=buffers)
    if settings.offload_optimizer != "nvme":
        host = Parts(parameters=masters + frozen, gradients=share, optimizer=moments, activations=away)
        return Estimate(device=device, host=host, disk=Parts())
    on_disk = frozen if settings.offload_param == "nvme" else 0
    return Estimate(
        device=device,
        host=Parts(
            parameters=frozen - on_disk,
            gradients=share,
            activations=away,
            buffers=_between_disk_and_memory(model, settings, shards),
        ),
        disk=Parts(parameters=masters + on_disk, optimizer=moments),
    )


def _moments(config: Config) -> int:
    optimizer = config.optimizer
    if optimizer is None or isinstance(optimizer, Adam):
        return 2
    return int(optimizer.params.momentum > 0) if isinstance(optimizer, Sgd) else 1


def _share(total: int, shards: int) -> int:
    return -(-total // shards)


def _gradients(model: Model, settings: Settings, shards: int) -> tuple[int, int]:
    """Whole ones, which stages 0 and 1 keep until the boundary, and shards. The former become the latter."""
    accumulates = settings.stage < 2 and settings.accumulation > 1
    whole = settings.reduce_bytes * model.trained if accumulates else 0
    waits = settings.stage == 2 and settings.accumulation > 1
    return whole, _share((settings.waiting_bytes if waits else _GRADIENT) * model.trained, shards)


def _gathered(model: Model, settings: Settings) -> int:
    """Whole parameters in the compute type; in stage 3 the root, the block at work and the next one."""
    if settings.stage < 3:
        return settings.compute_bytes * model.parameters
    present = model.root + min(2, model.blocks) * model.block
    second = _share(model.parameters, settings.hpz) if 1 < settings.hpz < settings.ranks else 0
    return settings.compute_bytes * min(present + second, model.parameters + second)


def _passing(model: Model, settings: Settings, activations: int) -> int:
    """What travels, beyond the activations that are there at the same time.

    In the backward: the root's whole gradient (the output layer's comes first), a gather's copy of a block,
    its gradient and the copy of that which is reduced. At both ends, without activations: the root's.
    """
    compute, reduced = settings.compute_bytes, settings.compute_bytes + settings.reduce_bytes
    root = min(model.root, model.trained)
    copies = compute if settings.ranks > 1 else 0
    within = compute * root + copies * model.block + reduced * model.block_trained
    return max(within, copies * model.root - activations, reduced * root - activations)


def _activations(model: Model, settings: Settings) -> tuple[int, int]:
    """On the device and in host memory. Recomputed, blocks keep their inputs, and one of them the rest."""
    of = model.activations[settings.compute_bytes]
    inputs = model.blocks * of.block_input
    if not settings.recompute:
        return settings.micro_batch * (model.blocks * of.block + of.outside), 0
    at_work = settings.micro_batch * max(of.block, of.outside)
    inputs *= settings.micro_batch
    return (at_work, inputs) if settings.inputs_in_host else (at_work + inputs, 0)


def _between_disk_and_memory(model: Model, settings: Settings, shards: int) -> int:
    elements = min(settings.sub_group_size, LARGEST_GROUP, _share(model.trained, shards))
    return settings.buffer_count * settings.moments * _MOMENT * elements
