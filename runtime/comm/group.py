"""The one place where a process joins the others of its job, and leaves them."""

from __future__ import annotations

import atexit
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.comm.recorder import keep_flight
from runtime.edges.addresses import in_url
from runtime.errors import BadInput, GroupFailed
from runtime.topology import Topology

if TYPE_CHECKING:
    import torch

DEFAULT_TIMEOUT_SECONDS = 600.0
THREAD = "pt_gloo_runloop"
_LIMIT_SECONDS, _PAUSE_SECONDS = 5.0, 0.002
_THREADS = Path("/proc/self/task")


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The job's process group as this process sees it.

    `device` is the one that this process's tensors belong on; `owned` says whether `initialize` formed the
    group, so that `shutdown` leaves a group alone that another library formed before.
    """

    topology: Topology
    backend: str
    device: torch.device
    owned: bool


def initialize(
    topology: Topology, *, backend: str | None = None, timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
) -> Group:
    """Joins the process group of the job and binds this process to its device.

    Args:
        backend: a backend of torch.distributed. Default: NCCL for GPU tensors and Gloo for those on the CPU
            where there are GPUs, else Gloo.
        timeout_seconds: limit for joining and, later, for each collective.

    Raises:
        GroupFailed: the others did not come, or the device is not there.
        BadInput: a group of another size exists already.
    """
    import torch.distributed as dist

    settle_at_exit()
    if topology.flight:
        keep_flight(Path(f"{topology.flight}{topology.rank}"))
    chosen = backend or default_backend()
    device = _bind(topology, chosen)
    if dist.is_initialized():
        _check_same(topology, dist.get_rank(), dist.get_world_size())
        return Group(topology=topology, backend=dist.get_backend(), device=device, owned=False)
    arguments: dict[str, Any] = {"device_id": device} if device.type == "cuda" else {}
    try:
        dist.init_process_group(
            chosen,
            rank=topology.rank,
            world_size=topology.world_size,
            timeout=timedelta(seconds=timeout_seconds),
            **meeting_point(topology),
            **arguments,
        )
    except RuntimeError as e:
        raise GroupFailed(
            f"join {topology.world_size} ranks over {chosen}",
            found=f"rank {topology.rank} on {topology.hostname} gave up at "
            f"{in_url(topology.master_addr)}:{topology.master_port}: {e}",
            fix="Find the node or link at fault with `python -m runtime smoke`.",
        ) from e
    return Group(topology=topology, backend=chosen, device=device, owned=True)


def shutdown(group: Group) -> None:
    """Leaves the process group, unless another library formed it."""
    import torch.distributed as dist

    if group.owned and dist.is_initialized():
        dist.destroy_process_group()


@contextmanager
def process_group(
    topology: Topology, *, backend: str | None = None, timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
) -> Iterator[Group]:
    """`initialize`, the body, `shutdown`."""
    group = initialize(topology, backend=backend, timeout_seconds=timeout_seconds)
    try:
        yield group
    finally:
        shutdown(group)


def default_backend() -> str:
    """NCCL and Gloo, each for its tensors, where there are GPUs; else Gloo."""
    import torch

    return "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"


def meeting_point(topology: Topology) -> dict[str, Any]:
    """Where the ranks find each other; a process on its own needs no port."""
    import torch.distributed as dist

    if topology.world_size == 1:
        return {"store": dist.HashStore()}  # type: ignore[attr-defined]
    return {"init_method": f"tcp://{in_url(topology.master_addr)}:{topology.master_port}"}


def _bind(topology: Topology, backend: str) -> torch.device:
    import torch

    if "nccl" not in backend:
        return torch.device("cpu")
    count = torch.cuda.device_count()
    if topology.local_rank >= count:
        raise GroupFailed(
            f"give local rank {topology.local_rank} on {topology.hostname} a GPU of its own",
            found=f"{count} GPUs are visible",
            fix="Lower the node's slots in the hostfile, or see what CUDA_VISIBLE_DEVICES hides.",
        )
    device = torch.device("cuda", topology.local_rank)
    torch.cuda.set_device(device)
    return device


def _check_same(topology: Topology, rank: int, world_size: int) -> None:
    if (rank, world_size) != (topology.rank, topology.world_size):
        raise BadInput(
            f"use a process group of {topology.world_size} ranks as rank {topology.rank}",
            found=f"a group of {world_size} exists already, and this process is its rank {rank}",
            fix="Form the group once, or let runtime.comm.group do it.",
        )


def settle_at_exit() -> None:
    """Has this process settle before its interpreter goes away; asking again changes nothing."""
    atexit.unregister(settle)
    atexit.register(settle)


def settle(*, limit_seconds: float = _LIMIT_SECONDS) -> bool:
    """Waits, with the interpreter's lock free, until no gloo thread is at work; says whether it came true.

    Else a process may abort at its end. A collective is over for its caller before the thread that ran it
    drops its tensors. A tensor that Python has seen is dropped under the interpreter's lock, and a thread
    that asks for this lock once the interpreter is going away is ended by pthread_exit. That unwinds through
    a C++ destructor: "terminate called without an active exception". `destroy_process_group` does not wait
    for the threads as long as anything, a device mesh for one, holds the group
    (https://github.com/pytorch/pytorch/pull/179291).

    A thread that waits for other ranks counts as not at work: it drops nothing.
    """
    deadline = time.monotonic() + limit_seconds
    quiet = 0
    while quiet < 2 and time.monotonic() < deadline:
        time.sleep(_PAUSE_SECONDS)
        quiet = 0 if is_at_work(_stats()) else quiet + 1
    return quiet == 2


def is_at_work(stats: Iterable[str]) -> bool:
    """Whether a gloo thread is anything but asleep, from lines of /proc/<pid>/task/<tid>/stat (proc(5))."""
    for stat in stats:
        name, _, rest = stat.partition("(")[2].rpartition(")")
        if name == THREAD and rest.split()[0] != "S":
            return True
    return False


def _stats() -> list[str]:
    found = []
    for thread in _THREADS.iterdir():
        try:
            found.append((thread / "stat").read_text())
        except OSError:  # it ended meanwhile
            continue
    return found
