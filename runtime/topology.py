"""Where this process stands in a job: the launcher's environment variables, read from a mapping."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from runtime.errors import BadInput

# Set by zerorun for its ranks.
FLIGHT = "CLUSTERWRIGHT_FLIGHT"
_REQUIRED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_MEETING = {"MASTER_ADDR": ("MASTER_ADDR",), "MASTER_PORT": ("MASTER_PORT",)}
# What each launcher calls it, by torchrun's names. A rank of several listens to the first: torchrun in srun.
_LAUNCHERS: Sequence[Mapping[str, Sequence[str]]] = (
    {  # zerorun, torchrun, deepspeed (LOCAL_SIZE, CROSS_RANK), accelerate, scripts
        "RANK": ("RANK",),
        "LOCAL_RANK": ("LOCAL_RANK",),
        "WORLD_SIZE": ("WORLD_SIZE",),
        "LOCAL_WORLD_SIZE": ("LOCAL_WORLD_SIZE", "LOCAL_SIZE"),
        "GROUP_RANK": ("GROUP_RANK", "CROSS_RANK", "NODE_RANK"),
    },
    {  # Open MPI's mpirun
        "RANK": ("OMPI_COMM_WORLD_RANK",),
        "LOCAL_RANK": ("OMPI_COMM_WORLD_LOCAL_RANK",),
        "WORLD_SIZE": ("OMPI_COMM_WORLD_SIZE",),
        "LOCAL_WORLD_SIZE": ("OMPI_COMM_WORLD_LOCAL_SIZE",),
    },
    {  # mpirun of MPICH and Intel MPI (hydra)
        "RANK": ("PMI_RANK",),
        "LOCAL_RANK": ("MPI_LOCALRANKID",),
        "WORLD_SIZE": ("PMI_SIZE",),
        "LOCAL_WORLD_SIZE": ("MPI_LOCALNRANKS",),
    },
    {  # srun; the script of sbatch has SLURM_PROCID as well, and is one process
        "RANK": ("SLURM_PROCID",),
        "LOCAL_RANK": ("SLURM_LOCALID",),
        "WORLD_SIZE": ("SLURM_STEP_NUM_TASKS",),
        "GROUP_RANK": ("SLURM_NODEID",),
    },
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """A process's place: ranks count from 0; `node_rank` is the position of its host in the hostfile.

    `flight` is the beginning of the path at which each rank leaves what it remembers when it ends badly (see
    `runtime.comm.recorder`); empty where the launcher does not want it.
    """

    rank: int
    local_rank: int
    world_size: int
    local_world_size: int
    node_rank: int
    master_addr: str
    master_port: int
    hostname: str
    flight: str = ""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Topology:
        """Reads what zerorun, torchrun, deepspeed, mpirun or srun has set; else this is the only process.

        Some launchers do not say how many ranks a node has; all of the job are then taken to be on one.

        Raises:
            BadInput: some of the variables are set and others missing, or one is not a sensible number.
        """
        said = torchrun_names(environ)
        missing = [name for name in _REQUIRED if name not in said]
        if not said or (missing and said.get("WORLD_SIZE") == "1" and "RANK" not in missing):
            return cls.single()
        if missing:
            raise BadInput(
                "read this process's place in the job from the environment",
                found=f"{', '.join(missing)} not set, though other variables of a launcher are",
                fix="Start the program with zerorun (or torchrun), or set them for every rank: "
                "`mpirun -x MASTER_ADDR=te1 -x MASTER_PORT=29500`, or before srun "
                "`export MASTER_ADDR=$(scontrol show hostnames | head -1) MASTER_PORT=29500`.",
            )
        on_node = "LOCAL_WORLD_SIZE" if "LOCAL_WORLD_SIZE" in said else "WORLD_SIZE"
        topology = cls(
            rank=_number(said, "RANK"),
            local_rank=_number(said, "LOCAL_RANK"),
            world_size=_number(said, "WORLD_SIZE"),
            local_world_size=_number(said, on_node),
            node_rank=_number(said, "GROUP_RANK") if "GROUP_RANK" in said else 0,
            master_addr=said["MASTER_ADDR"],
            master_port=_number(said, "MASTER_PORT"),
            hostname=socket.gethostname(),
            flight=environ.get(FLIGHT, ""),
        )
        topology._check()
        return topology

    @classmethod
    def single(cls) -> Topology:
        """The place of a process that no launcher started."""
        return cls(
            rank=0,
            local_rank=0,
            world_size=1,
            local_world_size=1,
            node_rank=0,
            master_addr="127.0.0.1",
            master_port=0,
            hostname=socket.gethostname(),
        )

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, the one that writes what is written once."""
        return self.rank == 0

    def _check(self) -> None:
        for name, value, bound in (
            ("RANK", self.rank, self.world_size),
            ("LOCAL_RANK", self.local_rank, self.local_world_size),
        ):
            if not 0 <= value < bound:
                raise BadInput(
                    "read this process's place in the job from the environment",
                    found=f"{name}={value} among {bound} processes",
                    fix="Ranks count from 0; start the program with zerorun (or torchrun).",
                )


def torchrun_names(environ: Mapping[str, str]) -> dict[str, str]:
    """What a launcher has told this rank, under torchrun's names; nothing where none has."""
    for names in _LAUNCHERS:
        said = {
            name: next(environ[variable] for variable in variables if variable in environ)
            for name, variables in {**names, **_MEETING}.items()
            if any(variable in environ for variable in variables)
        }
        # torchrun's may be half there, which is an error; of the others one alone may mean something else.
        if names is _LAUNCHERS[0] and {"RANK", "WORLD_SIZE"} & said.keys():
            return said
        if {"RANK", "LOCAL_RANK", "WORLD_SIZE"} <= said.keys():
            return said
    return {}


def _number(environ: Mapping[str, str], name: str) -> int:
    try:
        return int(environ[name])
    except ValueError as e:
        raise BadInput(
            "read this process's place in the job from the environment",
            found=f"{name}={environ[name]!r}",
            fix=f"{name} is a whole number; start the program with zerorun (or torchrun).",
        ) from e
