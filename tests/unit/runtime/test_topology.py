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
    with pytest.raises(BadInput, match="LOCAL_RANK, MASTER_PORT not set"):
        Topology.from_environment({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "te1"})


MEETING = {"MASTER_ADDR": "te1", "MASTER_PORT": "29500"}
LAUNCHERS = {
    "deepspeed": {"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8", "LOCAL_SIZE": "4", "CROSS_RANK": "1"},
    "Open MPI": {
        "OMPI_COMM_WORLD_RANK": "5",
        "OMPI_COMM_WORLD_LOCAL_RANK": "1",
        "OMPI_COMM_WORLD_SIZE": "8",
        "OMPI_COMM_WORLD_LOCAL_SIZE": "4",
    },
    "hydra": {"PMI_RANK": "5", "MPI_LOCALRANKID": "1", "PMI_SIZE": "8", "MPI_LOCALNRANKS": "4"},
    "srun": {
        "SLURM_PROCID": "5",
        "SLURM_LOCALID": "1",
        "SLURM_STEP_NUM_TASKS": "8",
        "SLURM_NODEID": "1",
        "SLURM_NTASKS": "16",
    },
    "a script": {"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8"},
}


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_rank_of_another_launcher_knows_its_place(launcher: str) -> None:
    topology = Topology.from_environment({**LAUNCHERS[launcher], **MEETING})

    assert (topology.rank, topology.local_rank, topology.world_size) == (5, 1, 8)
    assert topology.local_world_size == (8 if launcher in ("srun", "a script") else 4)
    assert topology.node_rank == (1 if launcher in ("deepspeed", "srun") else 0)
    assert topology.master_addr == "te1"


def test_torchrun_within_srun_is_listened_to() -> None:
    assert Topology.from_environment({**LAUNCHERS["srun"], **TORCHRUN}).master_addr == "10.0.0.1"


def test_a_script_of_sbatch_is_one_process() -> None:
    batch = {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NTASKS": "8", "SLURM_NODEID": "0"}

    assert Topology.from_environment(batch).world_size == 1


def test_one_process_of_srun_needs_no_meeting_point() -> None:
    alone = {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_STEP_NUM_TASKS": "1"}

    assert Topology.from_environment(alone).world_size == 1


def test_mpirun_without_a_meeting_point_is_told_how_to_give_one() -> None:
    with pytest.raises(BadInput, match=r"MASTER_ADDR, MASTER_PORT not set.*mpirun -x MASTER_ADDR"):
        Topology.from_environment(LAUNCHERS["Open MPI"])


@pytest.mark.parametrize(
    ("name", "value"), [("RANK", "8"), ("LOCAL_RANK", "4"), ("RANK", "one"), ("WORLD_SIZE", "")]
)
def test_a_number_that_cannot_be_is_refused(name: str, value: str) -> None:
    with pytest.raises(BadInput, match=name):
        Topology.from_environment({**TORCHRUN, name: value})
