"""Where this process stands in a job: the launcher's environment variables, read from a mapping."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass

from runtime.errors import BadInput

# Set by zerorun for its ranks.
FLIGHT = "CLUSTERWRIGHT_FLIGHT"
_REQUIRED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


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
        """Reads what torchrun (and so `zerorun`) sets; without a launcher, this is the only process.

        Raises:
            BadInput: some of the variables are set and others missing, or one is not a sensible number.
        """
        if "RANK" not in environ and "WORLD_SIZE" not in environ:
            return cls.single()
        missing = [name for name in _REQUIRED if name not in environ]
        if missing:
            raise BadInput(
                "read this process's place in the job from the environment",
                found=f"{', '.join(missing)} not set, though other variables of a launcher are",
                fix="Start the program with zerorun (or torchrun), or unset RANK and WORLD_SIZE.",
            )
        topology = cls(
            rank=_number(environ, "RANK"),
            local_rank=_number(environ, "LOCAL_RANK"),
            world_size=_number(environ, "WORLD_SIZE"),
            local_world_size=_number(environ, "LOCAL_WORLD_SIZE"),
            node_rank=_number(environ, "GROUP_RANK") if "GROUP_RANK" in environ else 0,
            master_addr=environ["MASTER_ADDR"],
            master_port=_number(environ, "MASTER_PORT"),
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


def _number(environ: Mapping[str, str], name: str) -> int:
    try:
        return int(environ[name])
    except ValueError as e:
        raise BadInput(
            "read this process's place in the job from the environment",
            found=f"{name}={environ[name]!r}",
            fix=f"{name} is a whole number; start the program with zerorun (or torchrun).",
        ) from e
