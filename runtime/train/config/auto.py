"""What `"auto"` becomes where no Trainer fills it in, and why."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from runtime.train.config.legacy import dotted
from runtime.train.config.off import Note


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What is known of a job besides its configuration; None where it is not known."""

    world_size: int
    hidden_size: int | None = None
    total_num_steps: int | None = None
    bf16_supported: bool = True


# A value and the reason for it. Figures are those that the Hugging Face Trainer fills in:
# transformers/integrations/deepspeed.py, TrainingArguments.
_Answer = tuple[Any, str]
AUTO_SIZE = "auto: to be solved"
_TRAINER = "as the Hugging Face Trainer's default"


def _hidden(factor: Callable[[int], int], text: str, otherwise: int) -> Callable[[Situation], _Answer]:
    def answer(situation: Situation) -> _Answer:
        if situation.hidden_size is None:
            return otherwise, "the default; the model's hidden size is not known"
        return factor(situation.hidden_size), f"{text} with hidden size {situation.hidden_size}"

    return answer


def _always(value: Any, why: str) -> Callable[[Situation], _Answer]:
    return lambda _: (value, why)


def _steps(situation: Situation) -> _Answer:
    if situation.total_num_steps is None:
        return None, "the job's length, which is not known yet"
    return situation.total_num_steps, "the job's length"


def _warmup(situation: Situation) -> _Answer:
    if situation.total_num_steps is None:
        return 1000, "the default; the job's length is not known"
    return max(1, situation.total_num_steps // 10), f"a tenth of {situation.total_num_steps} steps"


def _bf16(situation: Situation) -> _Answer:
    if situation.bf16_supported:
        return True, "the device computes in bf16"
    return False, "the device does not compute in bf16"


_LEAVE_OUT = object()
_DEFAULT = _always(_LEAVE_OUT, "the default")
ANSWERS: dict[str, Callable[[Situation], _Answer]] = {
    "train_batch_size": _always(_LEAVE_OUT, AUTO_SIZE),
    "train_micro_batch_size_per_gpu": _always(_LEAVE_OUT, AUTO_SIZE),
    "gradient_accumulation_steps": _always(_LEAVE_OUT, AUTO_SIZE),
    "gradient_clipping": _always(1.0, _TRAINER),
    "bf16.enabled": _bf16,
    "fp16.enabled": _always(False, "bf16 needs no loss scale; say true to have fp16"),
    "optimizer.params.lr": _always(5e-5, _TRAINER),
    "optimizer.params.betas": _always([0.9, 0.999], _TRAINER),
    "optimizer.params.eps": _always(1e-8, _TRAINER),
    "optimizer.params.weight_decay": _always(0.0, _TRAINER),
    "scheduler.params.warmup_min_lr": _always(0.0, _TRAINER),
    "scheduler.params.warmup_max_lr": _always(_LEAVE_OUT, "the optimizer's"),
    "scheduler.params.warmup_num_steps": _warmup,
    "scheduler.params.total_num_steps": _steps,
    "zero_optimization.reduce_bucket_size": _hidden(lambda h: h * h, "hidden^2", 500_000_000),
    "zero_optimization.allgather_bucket_size": _always(_LEAVE_OUT, "the default"),
    "zero_optimization.stage3_prefetch_bucket_size": _hidden(
        lambda h: int(0.9 * h * h), "0.9 hidden^2", 50_000_000
    ),
    "zero_optimization.stage3_param_persistence_threshold": _hidden(lambda h: 10 * h, "10 hidden", 100_000),
}


def resolve_auto(values: dict[str, Any], situation: Situation, note: Note) -> None:
    """Replaces every "auto" in `values`, in place; calls `note(path, why)` for each.

    Beyond ANSWERS it is the default, as in DeepSpeed: the key is left out.
    """
    for block, name, path in list(_autos(values, "")):
        value, why = ANSWERS.get(path, _DEFAULT)(situation)
        if path == "bf16.enabled" and _is_fp16(values):
            value, why = False, "fp16 is enabled"
        if value is _LEAVE_OUT:
            del block[name]
        else:
            block[name] = value
        note(path, why if why == AUTO_SIZE else f"auto: {why}")


def _is_fp16(values: dict[str, Any]) -> bool:
    fp16 = values.get("fp16")
    return isinstance(fp16, dict) and fp16.get("enabled") is True


def _autos(block: dict[str, Any], path: str) -> Iterator[tuple[dict[str, Any], str, str]]:
    for name, value in block.items():
        where = dotted(path, name)
        if value == "auto":
            yield block, name, where
        elif isinstance(value, dict):
            yield from _autos(value, where)
