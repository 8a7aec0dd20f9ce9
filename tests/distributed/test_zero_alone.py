"""What one rank does alone: it uses less of the model, evaluates, or catches an exception."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import runtime
from runtime.comm.group import shutdown
from runtime.errors import JobFailed
from runtime.topology import Topology
from runtime.train.engine import Engine
from tests.distributed.conftest import Ranks
from tests.distributed.test_zero_cut_off import Failing

pytestmark = pytest.mark.distributed

RANKS, WIDTH = 2, 4
# In fp32; with gradients that wait in another type than they are computed in, until a step reduces them.
TYPES: list[dict[str, Any]] = [{}, {"bf16": {"enabled": True}, "communication_data_type": "fp32"}]


class Net(nn.Module):
    """Units of one size, so that reductions of one could be taken for those of another."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.left, self.right, self.last = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.scale, self.shift = nn.Parameter(torch.ones(WIDTH)), nn.Parameter(torch.ones(WIDTH))
        self.fails = False

    def forward(self, x: torch.Tensor, how: str = "") -> torch.Tensor:
        x = torch.tanh(self.first(x))
        if self.fails:
            raise ZeroDivisionError
        if how == "other order":
            right, left = self.right(x), self.left(x)
        else:
            left, right = self.left(x), 0.0 if how == "no unit" else self.right(x)
        x = Failing.apply(left + right)  # type: ignore[no-untyped-call]
        x = self.last(x) * self.scale
        return (x if how == "no parameter" else x * self.shift).square().mean()


def config_of(stage: int, accumulation: int, **changes: Any) -> dict[str, Any]:
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": accumulation,
        "zero_optimization": {"stage": stage},
        # Weight decay moves a parameter whose gradient is zero, and not one that has none.
        "optimizer": {"type": "AdamW", "params": {"lr": 0.1, "weight_decay": 0.1, "eps": 0.01}},
        **changes,
    }


def start(stage: int, accumulation: int, **changes: Any) -> Engine:
    torch.manual_seed(0)
    config = config_of(stage, accumulation, **changes)
    return runtime.initialize(model=Net(), config=config, blocks=[nn.Linear])[0]


def batch(number: int, rank: int) -> torch.Tensor:
    return torch.randn(2, WIDTH, generator=torch.Generator().manual_seed(100 * number + rank))


def plain(accumulation: int, micro_steps: list[list[tuple[int, str] | None]]) -> dict[str, torch.Tensor]:
    """One process that does what all ranks do: in each micro-step what each rank is given, if anything."""
    torch.manual_seed(0)
    model = Net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1, eps=0.01)
    for number, given in enumerate(micro_steps, start=1):
        for rank, one in enumerate(given):
            if one is not None:
                (model(batch(one[0], rank), one[1]) / len(given) / accumulation).backward()
        if number % accumulation == 0:
            optimizer.step()
            optimizer.zero_grad()
    return model.state_dict()


def differing(engine: Engine, wanted: dict[str, torch.Tensor], tolerance: float = 1e-3) -> list[str]:
    for unit in engine.module.modules():
        if hasattr(unit, "reshard"):
            unit.reshard()
    found = {name: p.full_tensor().detach() for name, p in engine.module.named_parameters()}
    return [n for n in wanted if not torch.allclose(found[n], wanted[n], rtol=tolerance, atol=tolerance)]


def in_a_group(topology: Topology, act: Callable[..., Any], *arguments: Any) -> Any:
    group = runtime.init_distributed(timeout_seconds=10 if act is said_after else 60)  # of each collective
    found = act(topology.rank, *arguments)
    shutdown(group)
    return found


def trained_with(rank: int, stages: tuple[int, ...], hows: list[tuple[str, str]]) -> list[str]:
    wrong = []
    for stage in stages:
        for how in hows:
            for accumulation in (1, 2):
                for changes in TYPES:
                    engine = start(stage, accumulation, **changes)
                    for number in range(4):
                        engine.backward(engine(batch(number, rank), how[rank]))
                        engine.step()
                    given: list[list[tuple[int, str] | None]] = [[(n, h) for h in how] for n in range(4)]
                    # bf16 has 8 bits, and Adam makes of a small difference a larger one.
                    names = differing(engine, plain(accumulation, given), 5e-2 if changes else 1e-3)
                    wrong += [
                        f"stage {stage}, {how}, accumulation {accumulation}, {changes}: {names}"
                    ] * bool(names)
    return wrong


def test_ranks_may_use_other_parts_of_a_model(ranks: Ranks) -> None:
    hows = [("", "no unit"), ("no unit", "no unit"), ("", "other order"), ("no parameter", "")]

    assert ranks(in_a_group, RANKS, trained_with, (0, 1, 2), hows, timeout_seconds=240) == [[]] * RANKS


def test_stage_3_takes_other_parameters_of_the_same_units(ranks: Ranks) -> None:
    hows = [("no parameter", ""), ("no parameter", "no parameter")]

    assert ranks(in_a_group, RANKS, trained_with, (3,), hows, timeout_seconds=240) == [[]] * RANKS


def evaluated(rank: int) -> list[str]:
    wrong = []
    for stage in range(3):
        engine = start(stage, 1)
        for number in range(4):
            if rank == 0:
                engine.eval()
                with torch.no_grad():
                    engine(batch(number, rank))
                engine.train()
            engine.backward(engine(batch(number, rank)))
            engine.step()
        names = differing(engine, plain(1, [[(n, ""), (n, "")] for n in range(4)]))
        wrong += [f"stage {stage}: {names}"] * bool(names)
    return wrong


def test_one_rank_may_evaluate_alone(ranks: Ranks) -> None:
    assert ranks(in_a_group, RANKS, evaluated, timeout_seconds=240) == [[]] * RANKS


def micro_step(engine: Engine, number: int, rank: int, then: str, *, fails: str = "") -> None:
    """As scripts do that skip a batch: they go on with the next one, or end the micro-step without it."""
    engine.module.fails, Failing.now = fails == "forward", fails == "backward"
    try:
        engine.backward(engine(batch(number, rank)))
    except ArithmeticError:  # and ZeroDivisionError
        engine.module.fails = Failing.now = False
        if "zero_grad" in then:
            engine.zero_grad()
        if "step" not in then:
            return
    engine.step()


def forwards_failed(rank: int) -> list[str]:
    wrong = []
    fp16 = start(1, 1, fp16={"enabled": True})
    for number in range(3):  # without a backward there is none whose loss was not scaled
        micro_step(fp16, number, rank, "step", fails="forward" if (rank, number) == (1, 1) else "")
    for stage in range(3):
        for accumulation in (1, 2):
            for bad in (2, 3):
                for then in ("next", "step"):
                    engine = start(stage, accumulation)
                    alone = {1: bad}.get(rank)
                    for number in range(7 if rank and then == "next" else 6):
                        fails = "forward" if number == alone else ""
                        micro_step(engine, number, rank, then, fails=fails)
                    own: list[tuple[int, str] | None] = [None if n == bad else (n, "") for n in range(7)]
                    own = [one for one in own if one is not None or then == "step"]
                    wanted = plain(accumulation, [[(n, ""), own[n]] for n in range(6)])
                    if names := differing(engine, wanted):
                        wrong.append(
                            f"stage {stage}, accumulation {accumulation}, {then} after {bad}: {names}"
                        )
    return wrong


def test_a_forward_that_fails_on_one_rank_is_left_out(ranks: Ranks) -> None:
    """Up to stage 2: forwards ask no other rank."""
    assert ranks(in_a_group, RANKS, forwards_failed, timeout_seconds=240) == [[]] * RANKS


def said_after(rank: int, stage: int, fails: str, then: str, who: int) -> str:
    engine = start(stage, 1)
    try:
        for number in range(5):
            micro_step(engine, number, rank, then, fails=fails if (number, rank) == (2, who) else "")
    except JobFailed as e:
        return str(e)
    return "nothing"


@pytest.mark.parametrize(
    ("stage", "fails", "then", "who", "says"),
    [
        (0, "backward", "next", 1, "rank 1 alone"),
        (1, "backward", "zero_grad", 1, "rank 1 alone"),
        (2, "backward", "next", 0, "rank 0 alone"),
        (3, "forward", "step", 1, "rank 1 alone"),
        (3, "backward", "next", 1, "rank 1 alone"),
        (1, "backward", "zero_grad, step", 1, "other micro-steps"),
        (2, "backward", "zero_grad, step", 1, "other micro-steps"),
    ],
)
def test_what_cannot_go_on_is_named_on_every_rank(
    ranks: Ranks, stage: int, fails: str, then: str, who: int, says: str
) -> None:
    for said in ranks(in_a_group, RANKS, said_after, stage, fails, then, who, timeout_seconds=120):
        assert says in said


def dropped(rank: int, stage: int) -> tuple[str, list[str]]:
    """One rank drops shards of gradients that the others keep; then the training goes on."""
    engine = start(stage, 2)
    engine.backward(engine(batch(0, rank)))
    engine.step()
    if rank == 1:
        engine.zero_grad()
    engine.backward(engine(batch(1, rank)))
    said = ""
    try:
        engine.step()
    except JobFailed as e:
        said = str(e)
    for number in (2, 3):
        engine.backward(engine(batch(number, rank)))
        engine.step()
    return said, differing(engine, plain(2, [[(n, ""), (n, "")] for n in (2, 3)]))


@pytest.mark.parametrize("stage", [2, 3])
def test_gradients_of_other_micro_steps_are_never_mixed(ranks: Ranks, stage: int) -> None:
    for said, wrong in ranks(in_a_group, RANKS, dropped, stage, timeout_seconds=120):
        assert "other micro-steps on rank" in said
        assert wrong == []


def counted(rank: int, stage: int, accumulation: int, evaluates: bool) -> list[str]:
    """The collectives of an optimizer step, or of an evaluation."""
    engine = start(stage, accumulation)

    def step(number: int) -> None:
        for _ in range(accumulation):
            engine.backward(engine(batch(number, rank)))
            engine.step()

    step(0)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        if evaluates:
            engine.eval()
            with torch.no_grad(), contextlib.suppress(ZeroDivisionError):
                engine(batch(1, rank))
            engine.train()
        else:
            step(1)
    return sorted(e.name for e in profile.events() if e.name.startswith("c10d::"))


def test_no_evaluation_asks_another_rank_up_to_stage_2(ranks: Ranks) -> None:
    for stage in range(3):
        assert ranks(in_a_group, RANKS, counted, stage, 1, True, timeout_seconds=120) == [[]] * RANKS


# Four units and the root are reduced in each step, at stage 2 in each micro-step; once a step ranks agree.
# At stages 1 and 2 they are gathered, and ranks say whether shards were changed in place.
@pytest.mark.parametrize(
    ("stage", "accumulation", "reductions", "gathers", "words"),
    [(0, 1, 5, 0, 1), (0, 2, 5, 0, 1), (1, 1, 5, 5, 2), (1, 2, 5, 5, 2), (2, 1, 5, 5, 2), (2, 2, 10, 5, 3)],
)
def test_a_step_has_as_many_collectives_as_it_needs(
    ranks: Ranks, stage: int, accumulation: int, reductions: int, gathers: int, words: int
) -> None:
    for names in ranks(in_a_group, RANKS, counted, stage, accumulation, False, timeout_seconds=120):
        assert len(names) == reductions + gathers + words, names
