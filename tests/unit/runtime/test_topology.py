"""The launcher's environment variables, read from a dict."""

from __future__ import annotations

import pytest

from runtime.errors import BadInput
from runtime.topology import Topology

TORCHRUN = {
    "RANK": "5",
    "LOCAL_RANK": "1",
    "WORLD_SIZE": "8",
    "LOCAL_WORLD_SIZE": "4",
    "GROUP_RANK": "1",
    "MASTER_ADDR": "10.0.0.1",
    "MASTER_PORT": "29500",
}


def test_a_rank_of_torchrun_knows_its_place() -> None:
    topology = Topology.from_environment(TORCHRUN)

    assert (topology.rank, topology.local_rank, topology.node_rank) == (5, 1, 1)
    assert (topology.world_size, topology.local_world_size) == (8, 4)
    assert (topology.master_addr, topology.master_port) == ("10.0.0.1", 29500)
    assert not topology.is_first


def test_without_a_launcher_this_is_the_only_process() -> None:
    topology = Topology.from_environment({"PATH": "/bin"})

    assert (topology.rank, topology.world_size) == (0, 1)
    assert topology.is_first


def test_half_an_environment_is_refused_and_the_other_half_named() -> None:
    with pytest.raises(BadInput, match="LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_PORT not set"):
        Topology.from_environment({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "te1"})


@pytest.mark.parametrize(
    ("name", "value"), [("RANK", "8"), ("LOCAL_RANK", "4"), ("RANK", "one"), ("WORLD_SIZE", "")]
)
def test_a_number_that_cannot_be_is_refused(name: str, value: str) -> None:
    with pytest.raises(BadInput, match=name):
        Topology.from_environment({**TORCHRUN, name: value})
