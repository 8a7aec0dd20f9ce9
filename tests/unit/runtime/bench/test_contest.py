from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest

from runtime.bench.contest import (
    OURS,
    Contestant,
    Sample,
    contestants,
    definition_bytes,
    order_of,
    plot,
    rows_of,
)
from runtime.errors import BadInput


def sample(seconds: list[float], *, peak: int = 100) -> Sample:
    return Sample(parameters=10, seconds=seconds, state_bytes=80, peak_bytes=peak, loss=1.0)


def test_ours_runs_every_stage_and_a_peer_those_that_it_has() -> None:
    found = contestants(["ddp", "fsdp2", "deepspeed"], [1, 3])

    assert [str(contestant) for contestant in found] == [
        "clusterwright, stage 1",
        "clusterwright, stage 3",
        "ddp, stage 0",
        "fsdp2, stage 3",
        "deepspeed, stage 1",
        "deepspeed, stage 3",
    ]


@pytest.mark.parametrize(("peers", "stages"), [(["horovod"], [1]), (["clusterwright"], [1]), ([], [4])])
def test_a_peer_or_a_stage_that_nobody_has_is_refused(peers: list[str], stages: list[int]) -> None:
    with pytest.raises(BadInput):
        contestants(peers, stages)


def test_each_round_begins_with_another_contestant_and_leaves_none_out() -> None:
    everyone = contestants(["fsdp2"], [2, 3])
    rounds = [order_of(number, everyone) for number in range(len(everyone))]

    assert {found[0] for found in rounds} == set(everyone)
    assert all(set(found) == set(everyone) for found in rounds)


def test_ratios_are_of_medians_at_the_same_stage() -> None:
    ours = Contestant(engine=OURS, stage=3)
    peer = Contestant(engine="fsdp2", stage=3)
    other = Contestant(engine="ddp", stage=0)

    rows = rows_of(
        {
            ours: [sample([1.0, 2.0, 9.0], peak=50)],
            peer: [sample([4.0, 4.0]), sample([5.0])],
            other: [sample([1])],
        },
        2,
    )
    found = {row.contestant: row for row in rows}

    assert found[ours].seconds == 2.0
    assert found[ours].time_ratio is None
    assert (found[peer].time_ratio, found[peer].peak_ratio) == (0.5, 0.5)
    assert found[other].time_ratio is None
    assert found[peer].state_bytes_per_parameter == 8.0


@pytest.mark.parametrize(
    ("stage", "ranks", "expected"),
    [(0, 4, 16.0), (1, 1, 16.0), (1, 4, 7.0), (2, 2, 9.0), (2, 4, 5.5), (3, 4, 4.0)],
)
def test_the_definition_is_that_of_the_paper(stage: int, ranks: int, expected: float) -> None:
    assert definition_bytes(stage, ranks) == expected


def test_every_measurement_is_drawn_beside_its_definition() -> None:
    rows = [
        row
        for ranks in (1, 2, 4)
        for row in rows_of(
            {
                Contestant(engine="clusterwright", stage=stage): [
                    Sample(parameters=10, seconds=[1.0], state_bytes=100 + stage, peak_bytes=1, loss=1.0)
                ]
                for stage in (1, 2, 3)
            },
            ranks,
        )
    ]

    drawing = ElementTree.fromstring(plot(rows))

    titles = [element.text for element in drawing.iter("{http://www.w3.org/2000/svg}title")]
    assert len(titles) == 9
    assert "clusterwright, stage 2, 4 ranks: 10.20, definition 5.50" in titles
    heights = [float(bar.attrib["height"]) for bar in drawing.iter("{http://www.w3.org/2000/svg}rect")]
    assert all(height > 0 for height in heights)
