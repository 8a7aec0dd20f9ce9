"""The blocks `optimizer` and `scheduler`: one shape for each type."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from runtime.train.config.fields import Block, Whole, key

_UNIT = Annotated[float, Field(ge=0, lt=1)]
_LENGTH = "steps of the whole training; null from an auto that nobody has filled in"
_STEP = "a checkpoint brings the schedule's step back"
# Types that DeepSpeed 0.19.8 and older ones know, in small letters, and those of torch.optim.
ELSEWHERE = frozenset(
    (
        *("lamb", "fusedlamb", "lion", "fusedlion", "muon", "onebitadam", "onebitlamb", "zerooneadam"),
        *("muadam", "muadamw", "musgd", "adafactor", "adadelta", "adamax", "asgd", "lbfgs", "nadam", "radam"),
        *("rmsprop", "rprop", "sparseadam"),
    )
)
_FUSED = "PyTorch's fused AdamW is used, on CPUs as well"


class AdamParams(Block):
    """Parameters of Adam and AdamW."""

    lr: float = key(1e-3, "learning rate", ge=0)
    betas: tuple[_UNIT, _UNIT] = key((0.9, 0.999), "decay of the two moments")
    eps: float = key(1e-8, "added to the denominator", ge=0)
    weight_decay: float = key(0.0, "weight decay; 0 where it is left out, as the peer has it", ge=0)
    adam_w_mode: bool = key(True, "decoupled weight decay, also for type Adam; false gives Adam's L2")
    bias_correction: bool = key(True, "correct the moments' bias")
    amsgrad: bool = key(False, "keep the largest second moment", only="it is not implemented here")
    torch_adam: bool = key(False, "PyTorch's Adam", idle=_FUSED)
    fused: bool = key(True, "one kernel for the update", idle=_FUSED)
    foreach: bool = key(False, "several parameters at a time", idle=_FUSED)


class SgdParams(Block):
    """Parameters of SGD."""

    lr: float = key(1e-3, "learning rate", ge=0)
    momentum: float = key(0.0, "momentum", ge=0)
    dampening: float = key(0.0, "dampening of the momentum")
    weight_decay: float = key(0.0, "weight decay", ge=0)
    nesterov: bool = key(False, "Nesterov's momentum")


class AdagradParams(Block):
    """Parameters of Adagrad."""

    lr: float = key(1e-2, "learning rate", ge=0)
    lr_decay: float = key(0.0, "decay of the learning rate", ge=0)
    weight_decay: float = key(0.0, "weight decay", ge=0)
    eps: float = key(1e-10, "added to the denominator", ge=0)


class _Optimizer(Block):
    legacy_fusion: bool = key(False, "the peer's old fusion", idle=_FUSED)


class Adam(_Optimizer):
    """Adam or AdamW; both decouple the weight decay unless adam_w_mode is false."""

    type: Literal["Adam", "AdamW"]
    params: AdamParams = key(AdamParams(), "its parameters")


class Sgd(_Optimizer):
    """Stochastic gradient descent."""

    type: Literal["SGD"]
    params: SgdParams = key(SgdParams(), "its parameters")


class Adagrad(_Optimizer):
    """Adagrad."""

    type: Literal["Adagrad"]
    params: AdagradParams = key(AdagradParams(), "its parameters")


Optimizer = Annotated[Adam | Sgd | Adagrad, Field(discriminator="type")]

Curve = Literal["log", "linear"]
_Rate = Annotated[float, Field(ge=0)]
Rates = _Rate | list[_Rate]


class _Params(Block):
    last_batch_iteration: int = key(-1, "steps that were taken before", only=_STEP)


class WarmupParams(_Params):
    """From warmup_min_lr to warmup_max_lr, then constant."""

    warmup_min_lr: Rates = key(0.0, "learning rate of the first step; one number, or one for each group")
    warmup_max_lr: Rates | None = key(None, "learning rate after the warm-up; the optimizer's if left out")
    warmup_num_steps: Whole = key(1000, "steps of warm-up; 0 and 1 count as 2", ge=0)
    warmup_type: Curve = key("log", "shape of the warm-up")


class WarmupDecayParams(WarmupParams):
    """Warm-up, then down to 0 on a line."""

    total_num_steps: Whole | None = Field(description=_LENGTH, ge=1)
    warmup_max_lr: Rates | None = key(0.001, "learning rate after the warm-up")


class WarmupCosineParams(_Params):
    """Warm-up, then down along half a cosine; ratios are of the optimizer's learning rate."""

    total_num_steps: Whole | None = Field(description=_LENGTH, ge=1)
    warmup_min_ratio: float = key(0.0, "first ratio", ge=0)
    warmup_num_steps: Whole = key(1000, "steps of warm-up; 0 and 1 count as 2", ge=0)
    cos_min_ratio: float = key(0.0001, "last ratio", ge=0)
    warmup_type: Curve = key("log", "shape of the warm-up")


class OneCycleParams(_Params):
    """Up and down once, then decay."""

    cycle_min_lr: Rates = Field(description="learning rate at both ends of the cycle")
    cycle_max_lr: Rates = Field(description="learning rate at its top")
    decay_lr_rate: float = key(0.0, "decay after the cycle", ge=0)
    cycle_first_step_size: Whole = key(2000, "steps upwards", ge=1)
    cycle_second_step_size: Whole | None = key(None, "steps downwards; as many as upwards if left out", ge=0)
    cycle_first_stair_count: Whole = key(0, "stairs upwards; 0 is smooth", ge=0)
    cycle_second_stair_count: Whole | None = key(None, "stairs downwards; as upwards if left out", ge=0)
    decay_step_size: Whole = key(0, "steps for each decay; 0 for none", ge=0)
    cycle_momentum: bool = key(True, "cycle the first beta the other way")
    cycle_min_mom: float = key(0.8, "smallest first beta", ge=0, lt=1)
    cycle_max_mom: float = key(0.9, "largest first beta", ge=0, lt=1)
    decay_mom_rate: float = key(0.0, "decay of the first beta after the cycle", ge=0)


class RangeTestParams(_Params):
    """Up without end, to find the largest learning rate that still trains."""

    lr_range_test_min_lr: Rates = key(1e-3, "first learning rate")
    lr_range_test_step_size: Whole = key(2000, "steps for each increase", ge=1)
    lr_range_test_step_rate: float = key(1.0, "increase", ge=0)
    lr_range_test_staircase: bool = key(False, "in stairs, not on a line")


class WarmupLR(Block):
    """Warm-up, then constant."""

    type: Literal["WarmupLR"]
    params: WarmupParams = key(WarmupParams(), "its parameters")


class WarmupDecayLR(Block):
    """Warm-up, then linear decay."""

    type: Literal["WarmupDecayLR"]
    params: WarmupDecayParams


class WarmupCosineLR(Block):
    """Warm-up, then cosine decay."""

    type: Literal["WarmupCosineLR"]
    params: WarmupCosineParams


class OneCycle(Block):
    """One cycle."""

    type: Literal["OneCycle"]
    params: OneCycleParams


class LRRangeTest(Block):
    """Range test."""

    type: Literal["LRRangeTest"]
    params: RangeTestParams = key(RangeTestParams(), "its parameters")


Scheduler = Annotated[
    WarmupLR | WarmupDecayLR | WarmupCosineLR | OneCycle | LRRangeTest, Field(discriminator="type")
]
