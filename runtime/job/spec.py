"""What a job is, and what each of its nodes is told: sent as JSON, so that no shell reads it."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, MutableMapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

from runtime.errors import BadInput
from runtime.job.selection import Chosen

HOSTFILE = "/etc/clusterwright/hostfile"
CERTIFICATE = "/etc/clusterwright/certificate.json"
JOB_ENVIRONMENT = "/etc/clusterwright/job.env"

# A kernel takes no variable of more than 128 KiB (MAX_ARG_STRLEN, execve(2)).
_VARIABLE, _PIECE_BYTES = "CLUSTERWRIGHT_ORDER_", 1 << 16

# How the words of a program are run: a script of Python's, a module (-m), or any program (--no-python).


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A program and the nodes that run it, before anything has been asked of the nodes.

    `forwarded` holds variables of the launching shell, `environment` those given with --env and --env-file,
    which win over the node's own job.env. An empty `master_addr` stands for the first node, `master_port` 0
    for one that is free there. `timeout_seconds` 0 means no limit; `shown_ranks` None means all. Without
    `keep_logs` a node whose ranks succeeded removes its files. `gated`: the nodes must hold a certificate of
    the smoke test. `local_rank_option`, where it is not empty, is how each rank is told its number on its
    node as the program's first argument, as DeepSpeed's launcher does.
    """

    job_id: str
    nodes: tuple[Chosen, ...]
    kind: str
    words: tuple[str, ...]
    cwd: str
    python: str
    job_path: str
    local_rank_option: str = ""
    master_addr: str = ""
    master_port: int = 0
    interface: str = ""
    forwarded: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    job_environment_path: str = JOB_ENVIRONMENT
    certificate_path: str = CERTIFICATE
    gated: bool = True
    shown_ranks: frozenset[int] | None = frozenset({0})
    timeout_seconds: float = 0.0
    keep_logs: bool = True

    @property
    def job_file(self) -> str:
        """Where the launching machine keeps the account of the job."""
        return str(PurePosixPath(self.job_path) / "job.json")

    @property
    def world_size(self) -> int:
        """Processes over all nodes."""
        return sum(len(node.slots) for node in self.nodes)

    def hosts_by_rank(self) -> tuple[str, ...]:
        """The name of the node of each rank."""
        return tuple(node.host.name for node in self.nodes for _ in node.slots)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What one node is told to start; it crosses ssh as JSON and lies in the job's folder for the ranks.

    `slots` is empty unless a filter chose among the node's slots. `master_addr` is an address by now, and
    `master_port` the port that the first node holds there.
    """

    job_id: str
    host: str
    node_rank: int
    nnodes: int
    first_rank: int
    world_size: int
    nproc: int
    slots: tuple[int, ...]
    kind: str
    words: tuple[str, ...]
    local_rank_option: str
    cwd: str
    job_path: str
    master_addr: str
    master_port: int
    interface: str
    forwarded: Mapping[str, str]
    environment: Mapping[str, str]
    job_environment_path: str
    shown_local_ranks: tuple[int, ...]
    keep_logs: bool

    def path(self, name: str) -> str:
        """A file of the job on this node."""
        return str(PurePosixPath(self.job_path) / name)

    def rank_log(self, local_rank: int) -> str:
        """Where a rank's output goes, both streams in their order."""
        return self.path(f"logs/rank{self.first_rank + local_rank}.log")

    def rank_exit(self, local_rank: int) -> str:
        """Where a rank's end is recorded."""
        return self.path(f"logs/rank{self.first_rank + local_rank}.exit.json")

    def rank_pid(self, local_rank: int) -> str:
        """Where the number of a rank's process stands while it runs."""
        return self.path(f"logs/rank{self.first_rank + local_rank}.pid")

    @property
    def flight(self) -> str:
        """The beginning of the path at which each rank leaves what it remembers when it ends badly."""
        return self.path("logs/flight_rank")

    @property
    def node_log(self) -> str:
        """Where what looks after this node's ranks writes, and the store at which they meet."""
        return self.path(f"logs/node{self.node_rank}.log")


def orders(job: Job, *, master_addr: str, master_port: int) -> tuple[Order, ...]:
    """One order for each node, ranks counted through in the nodes' order."""
    made: list[Order] = []
    first_rank = 0
    for node_rank, node in enumerate(job.nodes):
        order = _order(job, node, node_rank=node_rank, first_rank=first_rank)
        made.append(replace(order, master_addr=master_addr, master_port=master_port))
        first_rank += len(node.slots)
    return tuple(made)


def _order(job: Job, node: Chosen, *, node_rank: int, first_rank: int) -> Order:
    nproc = len(node.slots)
    return Order(
        job_id=job.job_id,
        host=node.host.name,
        node_rank=node_rank,
        nnodes=len(job.nodes),
        first_rank=first_rank,
        world_size=job.world_size,
        nproc=nproc,
        slots=node.slots if node.picked else (),
        kind=job.kind,
        words=job.words,
        local_rank_option=job.local_rank_option,
        cwd=job.cwd,
        job_path=job.job_path,
        master_addr=job.master_addr,
        master_port=job.master_port,
        interface=job.interface,
        forwarded=dict(job.forwarded),
        environment=dict(job.environment),
        job_environment_path=job.job_environment_path,
        shown_local_ranks=tuple(
            local
            for local in range(nproc)
            if job.shown_ranks is None or first_rank + local in job.shown_ranks
        ),
        keep_logs=job.keep_logs,
    )


def from_json(values: Mapping[str, Any]) -> Order:
    """The order back from plain values; tuples were lists on the way."""
    restored: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
    }
    return Order(**restored)


def to_variables(order: Order) -> dict[str, str]:
    """The order for the ranks of a node, as variables: nobody else can change them.

    Without the variables of the job, which may be secrets, and which the ranks have anyway.
    """
    text = json.dumps(asdict(replace(order, forwarded={}, environment={})))
    pieces = [text[start : start + _PIECE_BYTES] for start in range(0, len(text), _PIECE_BYTES)]
    return {f"{_VARIABLE}{number}": piece for number, piece in enumerate(pieces)}


def take_variables(environ: MutableMapping[str, str]) -> Order:
    """The order from them; they are taken out, so that the program does not see them."""
    pieces: list[str] = []
    while (piece := environ.pop(f"{_VARIABLE}{len(pieces)}", None)) is not None:
        pieces.append(piece)
    return from_json(json.loads("".join(pieces)))


def redacted(order: Order, *, hidden: Collection[str] = ()) -> str:
    """The order as indented JSON for a person; masked are variables that look like secrets, and `hidden`."""
    shown = replace(order, forwarded=_mask(order.forwarded, ()), environment=_mask(order.environment, hidden))
    return json.dumps(asdict(shown), indent=2)


def _mask(variables: Mapping[str, str], hidden: Collection[str]) -> dict[str, str]:
    secret = ("KEY", "TOKEN", "SECRET", "PASSWORD")
    return {
        name: "***" if name in hidden or any(word in name.upper() for word in secret) else value
        for name, value in variables.items()
    }


def parse_assignments(pairs: Sequence[str]) -> dict[str, str]:
    """--env options as variables.

    Raises:
        BadInput: one is not KEY=VALUE.
    """
    variables: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not is_variable(name):
            raise BadInput(
                f"set the variable of --env {pair!r}",
                found="it is not KEY=VALUE",
                fix="Write --env KEY=VALUE.",
            )
        variables[name] = value
    return variables


def is_variable(text: str) -> bool:
    """Whether a variable of a shell can have that name."""
    return text.isidentifier() and text.isascii()


def parse_shown(text: str, world_size: int) -> frozenset[int] | None:
    """--tee: `all` (None) or ranks with commas; rank 0 is always shown.

    Raises:
        BadInput: a rank that the job does not have.
    """
    if text == "all":
        return None
    shown = {0}
    for number in filter(None, text.split(",")):
        if not number.isdecimal() or int(number) >= world_size:
            raise BadInput(
                f"show the output of rank {number!r} (--tee)",
                found=f"the job has ranks 0 to {world_size - 1}",
                fix="Write --tee all, or ranks with commas.",
            )
        shown.add(int(number))
    return frozenset(shown)
