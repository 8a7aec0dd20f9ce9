"""Nothing that trains reads a global rank, or talks to all ranks of a job, but to say so: it asks an axis."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TRAIN = ROOT / "runtime" / "train"
PLACE = {"rank", "world_size", "is_first"}
BARE = {
    *("all_gather", "all_gather_into_tensor", "all_gather_object", "all_reduce", "all_to_all"),
    "barrier",
    *("broadcast", "broadcast_object_list", "gather", "gather_object", "isend", "irecv", "recv", "reduce"),
    *(
        "reduce_scatter",
        "reduce_scatter_tensor",
        "scatter",
        "send",
        "new_group",
        "get_rank",
        "get_world_size",
    ),
}


def global_ranks(tree: ast.AST) -> Iterator[str]:
    """Words of a module that mean all ranks of a job; what is put into a text is for people."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.JoinedStr):
            continue
        if isinstance(node, ast.Attribute):
            words = ast.unparse(node)
            owner = words.split(".")[-2]
            if (owner == "topology" and node.attr in PLACE) or (owner == "dist" and node.attr in BARE):
                yield words
        yield from global_ranks(node)


@pytest.mark.parametrize(
    "path", [path for path in sorted(TRAIN.rglob("*.py")) if TRAIN / "parallel" not in path.parents], ids=str
)
def test_what_trains_asks_an_axis_for_its_ranks(path: Path) -> None:
    assert list(global_ranks(ast.parse(path.read_text()))) == []


def test_a_global_rank_is_found_and_one_in_a_text_is_not() -> None:
    text = "if group.topology.is_first:\n    dist.barrier()\n    say(f'rank {topology.rank} is late')\n"

    assert list(global_ranks(ast.parse(text))) == ["group.topology.is_first", "dist.barrier"]
