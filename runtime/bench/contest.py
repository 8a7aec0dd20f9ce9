"""Who is compared in a benchmark, in which order, and what comes out: pure, no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from runtime.errors import BadInput

OURS = "clusterwright"
MARK = "clusterwright-bench "  # begins the line in which a job's first rank says its result
# Stages that an engine can run. DDP shards nothing, which is stage 0; FSDP2 always shards gradients.
STAGES: Mapping[str, tuple[int, ...]] = {
    OURS: (0, 1, 2, 3),
    "ddp": (0,),
    "fsdp2": (2, 3),
    "deepspeed": (1, 2, 3),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """An engine at a ZeRO stage."""

    engine: str
    stage: int

    def __str__(self) -> str:
        return f"{self.engine}, stage {self.stage}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What every contestant trains: a stack of nn.TransformerEncoderLayer between two embeddings, in bf16.

    So few tokens because a processor without bf16 instructions multiplies at 1 to 10 GFLOP/s: alike for every
    contestant, it would bury what they differ in. On a GPU, ask for more.
    """

    width: int = 512
    depth: int = 8
    vocabulary: int = 2048
    sequence: int = 4
    micro_batch: int = 1
    accumulation: int = 2
    steps: int = 12
    warm_up: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One job of one contestant; all values are of the rank with most, seconds of one optimizer step.

    Args:
        processor_seconds: what the first rank computed in each step; other programs hardly change it.
        state_bytes: tensors alive in the last micro-step of a step, after its forward or before the update,
            whichever is more; what the forward computed is not among them.
        peak_bytes: growth of the resident (on a GPU: allocated) memory from before the model was built.
    """

    parameters: int
    seconds: Sequence[float]
    state_bytes: int
    peak_bytes: int
    loss: float
    processor_seconds: Sequence[float] = (0.0,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A contestant's medians over its jobs, beside the same of ours at the same stage."""

    contestant: Contestant
    ranks: int
    seconds: float
    state_bytes_per_parameter: float
    expected_bytes_per_parameter: float | None
    peak_bytes: float
    loss: float
    processor_seconds: float
    time_ratio: float | None = None
    processor_ratio: float | None = None
    peak_ratio: float | None = None
    jobs: Sequence[Sample] = field(default=())


def contestants(peers: Sequence[str], stages: Sequence[int]) -> list[Contestant]:
    """Ours at every stage, then every peer at the stages that it has.

    Raises:
        BadInput: an engine or a stage that nobody has.
    """
    for peer in peers:
        if peer not in STAGES or peer == OURS:
            known = ", ".join(name for name in STAGES if name != OURS)
            fix = "Write --peers ddp,fsdp2 or --peers none."
            raise BadInput(f"compare with {peer!r}", found=f"known peers: {known}", fix=fix)
    for stage in stages:
        if stage not in STAGES[OURS]:
            raise BadInput(f"run stage {stage}", found="stages are 0 to 3", fix="Write --stages 1,2,3.")
    return [
        Contestant(engine=engine, stage=stage)
        for engine in (OURS, *peers)
        for stage in STAGES[engine]
        if stage in stages or engine == "ddp"
    ]


def order_of(round_number: int, everyone: Sequence[Contestant]) -> list[Contestant]:
    """Another one begins in each round, so that no contestant always runs on the coldest machine."""
    begin = round_number % len(everyone)
    return [*everyone[begin:], *everyone[:begin]]


def definition_bytes(stage: int, ranks: int) -> float:
    """Model state per parameter in mixed precision with Adam: Rajbhandari et al. 2020, table 1 (K = 12)."""
    return {0: 16.0, 1: 4 + 12 / ranks, 2: 2 + 14 / ranks, 3: 16 / ranks}[stage]


def rows_of(samples: Mapping[Contestant, Sequence[Sample]], ranks: int) -> list[Row]:
    """Medians, and each peer's ratio to ours at its stage (below 1: ours needs less)."""
    rows = [_row(contestant, found, ranks) for contestant, found in samples.items()]
    ours = {row.contestant.stage: row for row in rows if row.contestant.engine == OURS}
    return [_beside(row, ours.get(row.contestant.stage)) for row in rows]


def _row(contestant: Contestant, found: Sequence[Sample], ranks: int) -> Row:
    return Row(
        contestant=contestant,
        ranks=ranks,
        seconds=median(second for sample in found for second in sample.seconds),
        state_bytes_per_parameter=median(sample.state_bytes / sample.parameters for sample in found),
        expected_bytes_per_parameter=definition_bytes(contestant.stage, ranks),
        peak_bytes=median(sample.peak_bytes for sample in found),
        loss=median(sample.loss for sample in found),
        processor_seconds=median(second for sample in found for second in sample.processor_seconds),
        jobs=tuple(found),
    )


def _beside(row: Row, ours: Row | None) -> Row:
    if ours is None or row.contestant.engine == OURS:
        return row
    values = {name: getattr(row, name) for name in Row.__dataclass_fields__}
    return Row(
        **values
        | {
            "time_ratio": ours.seconds / row.seconds,
            "processor_ratio": ours.processor_seconds / max(1e-9, row.processor_seconds),
            "peak_ratio": ours.peak_bytes / max(1.0, row.peak_bytes),
        }
    )


def to_json(rows: Sequence[Row], workload: Workload) -> dict[str, Any]:
    """Everything that was measured."""
    return {"workload": asdict(workload), "rows": [asdict(row) for row in rows]}
