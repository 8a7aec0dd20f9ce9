"""Who is compared in a benchmark, in which order, what comes out, and its drawing: pure, no torch."""

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
_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 720, 340, 44, 56, 44
_COLOURS = ("#1f5fa8", "#4f8fd0", "#9dc3ea", "#8a8a8a", "#c9772e", "#e0a96d", "#5b8c5a", "#a3c9a2", "#7d5ba6")


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


def plot(rows: Sequence[Row]) -> str:
    """An SVG: bars for what was measured, grouped by ranks, and a red line for the definition."""
    counts = sorted({row.ranks for row in rows})
    kinds = list(dict.fromkeys(str(row.contestant) for row in rows))
    top = max(max(r.state_bytes_per_parameter, r.expected_bytes_per_parameter or 0.0) for r in rows) * 1.05
    group = (_WIDTH - _LEFT - 10) / len(counts)
    bar = group * 0.8 / len(kinds)
    drawn = [_axis(top), _legend(kinds)]
    for row in rows:
        number = kinds.index(str(row.contestant))
        x = _LEFT + counts.index(row.ranks) * group + group * 0.1 + number * bar
        drawn.append(_bar(row, x, bar, top, _COLOURS[number % len(_COLOURS)]))
    for number, count in enumerate(counts):
        x = _LEFT + (number + 0.5) * group
        ranks = "1 rank" if count == 1 else f"{count} ranks"
        drawn.append(f'<text x="{x:.1f}" y="{_HEIGHT - 18}" text-anchor="middle">{ranks}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" '
        'role="img" aria-label="bytes of model state for each parameter" '
        'font-size="11" font-family="system-ui, sans-serif">'
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>{"".join(drawn)}</svg>\n'
    )


def _up(value: float, top: float) -> float:
    return _HEIGHT - _BOTTOM - value / top * (_HEIGHT - _BOTTOM - _TOP)


def _bar(row: Row, x: float, width: float, top: float, colour: str) -> str:
    held, wanted = row.state_bytes_per_parameter, row.expected_bytes_per_parameter
    y = _up(held, top)
    title = f"{row.contestant}, {row.ranks} ranks: {held:.2f}" + (
        f", definition {wanted:.2f}" if wanted else ""
    )
    drawn = (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width * 0.86:.1f}" height="{_HEIGHT - _BOTTOM - y:.1f}" '
        f'fill="{colour}"><title>{title}</title></rect>'
        f'<text x="{x + width * 0.43:.1f}" y="{y - 5:.1f}" text-anchor="middle">{held:.2f}</text>'
    )
    if wanted is None:
        return drawn
    return (
        drawn + f'<path d="M{x - 2:.1f} {_up(wanted, top):.1f}h{width:.1f}" stroke="#c00" stroke-width="2"/>'
    )


def _axis(top: float) -> str:
    marks = [mark for mark in range(0, 65, 4) if mark <= top]
    return "".join(
        f'<path d="M{_LEFT} {_up(mark, top):.1f}H{_WIDTH - 10}" stroke="#ddd"/>'
        f'<text x="{_LEFT - 6}" y="{_up(mark, top) + 4:.1f}" text-anchor="end">{mark}</text>'
        for mark in marks
    )


def _legend(kinds: Sequence[str]) -> str:
    about = "Model state, bytes for each parameter; red: the definition"
    each = (_WIDTH - 20) / max(len(kinds), 4)
    return f'<text x="10" y="16" font-weight="600">{about}</text>' + "".join(
        f'<rect x="{10 + number * each:.1f}" y="26" width="10" height="10" '
        f'fill="{_COLOURS[number % len(_COLOURS)]}"/>'
        f'<text x="{24 + number * each:.1f}" y="35">{kind}</text>'
        for number, kind in enumerate(kinds)
    )
