"""What `"auto"` becomes where no Trainer fills it in, and why."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from runtime.train.config.legacy import Note, dotted
from runtime.train.config.problems import Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What is known of a job besides its configuration; None where it is not known."""

    world_size: int
    hidden_size: int | None = None
    total_num_steps: int | None = None
    bf16_supported: bool = True


# A value and the reason for it, or None where nothing sensible can be said. Figures are those that the
# Hugging Face Trainer fills in: transformers/integrations/deepspeed.py, TrainingArguments.
_Answer = tuple[Any, str] | None
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
    return None if situation.total_num_steps is None else (situation.total_num_steps, "the job's length")


def _warmup(situation: Situation) -> _Answer:
    if situation.total_num_steps is None:
        return 1000, "the default; the job's length is not known"
    return max(1, situation.total_num_steps // 10), f"a tenth of {situation.total_num_steps} steps"


def _bf16(situation: Situation) -> _Answer:
    if situation.bf16_supported:
        return True, "the device computes in bf16"
    return False, "the device does not compute in bf16"


_LEAVE_OUT = object()
ANSWERS: dict[str, Callable[[Situation], _Answer]] = {
    "train_batch_size": _always(_LEAVE_OUT, ""),
    "train_micro_batch_size_per_gpu": _always(_LEAVE_OUT, ""),
    "gradient_accumulation_steps": _always(_LEAVE_OUT, ""),
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


def resolve_auto(values: dict[str, Any], situation: Situation, note: Note) -> list[Problem]:
    """Replaces every "auto" in `values`, in place; calls `note(path, why)` for each."""
    problems = []
    for block, name, path in list(_autos(values, "")):
        answer = ANSWERS.get(path, _unknown)(situation)
        if answer is None:
            problems.append(_unanswered(path))
        elif answer[0] is _LEAVE_OUT:
            del block[name]
            if answer[1]:
                note(path, f"auto: {answer[1]}")
        else:
            block[name] = answer[0]
            note(path, f"auto: {answer[1]}")
    return problems


def _unknown(_: Situation) -> _Answer:
    return None


def _unanswered(path: str) -> Problem:
    if path in ANSWERS:
        return Problem(
            where=path, found='"auto", and the job\'s length is not known', fix="Write the number."
        )
    return Problem(
        where=path, found='"auto" has no meaning for this key', fix="Write a value, or leave it out."
    )


def _autos(block: dict[str, Any], path: str) -> Iterator[tuple[dict[str, Any], str, str]]:
    for name, value in block.items():
        where = dotted(path, name)
        if value == "auto":
            yield block, name, where
        elif isinstance(value, dict):
            yield from _autos(value, where)
