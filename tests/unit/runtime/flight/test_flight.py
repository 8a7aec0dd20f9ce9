"""Who is behind, by what ranks remember."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runtime.errors import BadInput
from runtime.flight.compare import compare
from runtime.flight.dump import Call, Dump, find_dumps, read_dump
from tests.conftest import RecordRefusal

SHAPES = {"all_reduce": "[1024] Float", "broadcast": "[8] Float", "all_gather": "[512] BFloat16"}


def dump(rank: int, *operations: str, group: str = "0", state: str = "scheduled", after: int = 0) -> Dump:
    """A rank that made these calls in a group, `after` so many that it no longer remembers."""
    calls = (
        Call(
            group=group,
            number=number,
            operation=operation.split("/")[0],
            shape=SHAPES[operation.split("/")[0]] if "/" not in operation else operation.split("/")[1],
            state=state,
            at=f"train.py:{number} (step)",
            created=float(number),
        )
        for number, operation in enumerate(operations, start=after + 1)
    )
    return Dump(rank=rank, calls=tuple(calls))


def found(*dumps: Dump, world_size: int = 0) -> list[tuple[tuple[int, ...], str]]:
    return [(finding.ranks, finding.found) for finding in compare(dumps, world_size=world_size)]


def test_the_rank_that_made_fewer_calls_is_behind() -> None:
    step = ("all_reduce", "broadcast")

    ((ranks, words),) = found(dump(0, *step, "all_gather"), dump(1, *step), dump(2, *step, "all_gather"))

    assert ranks == (1,)
    assert words == (
        "rank 1 is behind in the group of all ranks: its last was call 2, broadcast of [8] Float at "
        "train.py:2 (step); ranks 0, 2 is in call 3, all_gather of [512] BFloat16 at train.py:3 (step)"
    )


def test_what_ranks_have_forgotten_does_not_put_them_behind() -> None:
    long = dump(0, "all_reduce", "all_reduce", "all_reduce")
    short = dump(1, "all_reduce", after=2)

    (finding,) = compare([long, short])

    assert not finding.conclusive
    assert "no rank is behind: each ends with call 3" in finding.found


def test_another_operation_names_the_odd_rank_out() -> None:
    ((ranks, words),) = found(
        dump(0, "all_reduce"), dump(1, "broadcast", "all_reduce"), dump(2, "all_reduce")
    )

    assert ranks == (1,)
    assert words.startswith(
        "call 1 of the group of all ranks is not the same on all ranks: ranks 0, 2: all_reduce"
    )


def test_another_shape_on_one_of_two_ranks_names_both() -> None:
    ((ranks, words),) = found(dump(0, "all_reduce/[4] Float"), dump(1, "all_reduce/[5] Float"))

    assert ranks == (0, 1)
    assert "[4] Float" in words
    assert "[5] Float" in words


def test_a_rank_without_a_dump_is_named() -> None:
    ((ranks, words),) = found(dump(0, "all_reduce"), dump(1, "all_reduce"), world_size=4)

    assert ranks == (2, 3)
    assert words == "ranks 2, 3 left no dump: stopped, lost, or killed before it could write one"


def test_each_group_is_compared_by_itself() -> None:
    first = Dump(
        rank=0, calls=dump(0, "all_reduce").calls + dump(0, "broadcast", "broadcast", group="3").calls
    )
    second = Dump(rank=1, calls=dump(1, "all_reduce").calls + dump(1, "broadcast", group="3").calls)

    ((ranks, words),) = found(first, second, dump(2, "all_reduce"))

    assert ranks == (1,)
    assert "is behind in group 3" in words


def test_over_nccl_the_rank_that_did_not_finish_is_named() -> None:
    ((ranks, words),) = found(
        dump(0, "all_reduce", state="completed"), dump(1, "all_reduce", state="started")
    )

    assert ranks == (1,)
    assert "rank 1 did not finish call 1, all_reduce" in words


def entry(**changes: Any) -> dict[str, Any]:
    return {
        "frames": [
            {
                "filename": "/env/lib/torch/distributed/distributed_c10d.py",
                "line": 3245,
                "name": "all_reduce",
            },
            {"filename": "/data/code/train.py", "line": 31, "name": "step"},
        ],
        "process_group": ("0", "default_pg"),
        "collective_seq_id": 7,
        "is_p2p": False,
        "profiling_name": "gloo:all_reduce",
        "time_created_ns": 1_500_000_000,
        "input_sizes": [[1024]],
        "input_dtypes": ["Float"],
        "state": "scheduled",
        **changes,
    }


def written(folder: Path, name: str, values: object) -> Path:
    path = folder / name
    path.write_bytes(pickle.dumps(values))
    return path


def test_a_dump_is_read(tmp_path: Path) -> None:
    values = {"version": "2.10", "entries": [entry(), entry(is_p2p=True)]}

    read = read_dump(written(tmp_path, "flight_rank12", values))

    assert read == Dump(
        rank=12,
        calls=(
            Call(
                group="0",
                number=7,
                operation="all_reduce",
                shape="[1024] Float",
                state="scheduled",
                at="/data/code/train.py:31 (step)",
                created=1.5,
            ),
        ),
    )


@pytest.mark.attack("file")
@pytest.mark.parametrize("rank", ["4000000000", str(1 << 20), "9" * 200])
def test_a_rank_that_no_cluster_has_is_refused_by_its_name(
    tmp_path: Path, rank: str, record_refusal: RecordRefusal
) -> None:
    written(tmp_path, f"flight_rank{rank}", {"version": "2.10", "entries": [entry()]})
    (path,) = find_dumps([tmp_path])

    with pytest.raises(BadInput, match="its name says rank") as e:
        read_dump(path)

    record_refusal(e.value)


@pytest.mark.attack("file")
def test_of_many_ranks_that_are_missing_some_are_named(record_refusal: RecordRefusal) -> None:
    some = [dump(rank, "all_reduce") for rank in (0, 2, (1 << 20) - 1)]

    (ranks, words), *_ = found(*some)

    record_refusal(words)
    assert len(ranks) == (1 << 20) - 3
    assert words.startswith("ranks 1, 3, 4, ")
    assert f" and {(1 << 20) - 3 - 64} more left no dump" in words


class Counted(str):
    """The name of a group that counts how often it is compared with another."""

    compared = 0

    def __eq__(self, other: object) -> bool:
        Counted.compared += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


@pytest.mark.attack("file")
def test_calls_of_many_groups_are_looked_at_once(record_refusal: RecordRefusal) -> None:
    """Operations are counted, not seconds."""
    calls = dump(0, *["all_reduce"] * 2000).calls
    dumps = [
        Dump(rank=rank, calls=tuple(replace(call, group=Counted(call.number)) for call in calls))
        for rank in range(2)
    ]

    (finding,) = compare(dumps)

    record_refusal(f"{Counted.compared} names of groups were compared for 4,000 calls")
    assert not finding.conclusive
    assert Counted.compared < 40_000


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("/tmp/never"),))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"version": "1.0", "entries": []}, "format 1.0"),
        ({"entries": []}, "version"),
        ([], ""),
        ({"version": "2.4", "entries": [Hostile()]}, "which a dump does not hold"),
    ],
)
def test_what_is_no_dump_is_refused_and_nothing_of_it_is_run(
    tmp_path: Path, values: object, words: str
) -> None:
    with pytest.raises(BadInput, match="what a rank remembers") as refused:
        read_dump(written(tmp_path, "flight_rank0", values))

    assert words in refused.value.found


def test_the_dumps_of_a_folder_are_found_by_their_names(tmp_path: Path) -> None:
    for name in ("flight_rank0", "flight_rank10", "rank0.log", "flight_rank1.partial", "node0.log"):
        (tmp_path / name).touch()

    assert [path.name for path in find_dumps([tmp_path])] == ["flight_rank0", "flight_rank10"]
    with pytest.raises(BadInput, match="what ranks remember"):
        find_dumps([tmp_path / "none"])
