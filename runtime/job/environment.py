"""Which variables a rank gets, and from where: pure functions over mappings.

In rising order: the node's own session (a short list), the launching shell (an allow-list), what the launcher
computes, the node's job.env, --env-file, --env. DeepSpeed exports neither HF_* nor WANDB_* and crashes on a
blank line of its file (deepspeed/launcher/runner.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from runtime.as_deepspeed.finder import answering_deepspeed
from runtime.errors import BadInput
from runtime.job.spec import Order, is_variable
from runtime.topology import FLIGHT

FORWARDED = (
    "NCCL_*",
    "GLOO_*",
    "TORCH_*",
    "OMP_*",
    "CUDA_VISIBLE_DEVICES",
    "PYTHON*",
    "HF_*",
    "WANDB_*",
)
SESSION = (
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LC_*",
    "TZ",
    "TMPDIR",
    "LD_LIBRARY_PATH",
)

# Collectives that a rank remembers: some steps of a large model.
_REMEMBERED = "2000"
_NAMES = ("TORCH_FR_BUFFER_SIZE", "TORCH_FR_DUMP_TEMP_FILE")
# A collective of NCCL that fails ends its process, as under torchrun.
_ASYNC = {"TORCH_NCCL_ASYNC_ERROR_HANDLING": "1"}
_OLD_NAMES = ("TORCH_NCCL_TRACE_BUFFER_SIZE", "TORCH_NCCL_DEBUG_INFO_TEMP_FILE")


def matching(environ: Mapping[str, str], patterns: tuple[str, ...]) -> dict[str, str]:
    """The variables whose names match one of the patterns."""
    return {
        name: value
        for name, value in environ.items()
        if any(fnmatchcase(name, pattern) for pattern in patterns)
    }


def parse_job_environment(text: str, *, source: str) -> dict[str, str]:
    """KEY=VALUE lines; blank lines and lines that begin with `#` are allowed. Values are taken as they stand.

    Raises:
        BadInput: with the number of a line that is neither; what stands there may be a secret.
    """
    variables: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, equals, value = line.partition("=")
        if not equals or not is_variable(name.strip()):
            raise BadInput(
                f"read {source}, line {number}",
                found="no variable is set there",
                fix="A line reads KEY=VALUE or begins with #.",
            )
        variables[name.strip()] = value.strip()
    return variables


def rank_environment(
    order: Order,
    *,
    session: Mapping[str, str],
    job: Mapping[str, str],
    python: str,
    torch: str,
    interface: str,
    cpus: int,
) -> dict[str, str]:
    """What all ranks of a node have in their environments.

    Args:
        session: variables of the node's own session.
        job: variables of the node's job.env.
        torch: its version, empty for none.
        interface: the one that carries the address towards the first node, used where nobody names another.
        cpus: processors that the ranks of this node share.
    """
    forwarded = dict(order.forwarded)
    if order.slots:
        forwarded["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, order.slots))
    threads = {"OMP_NUM_THREADS": str(max(1, cpus // order.nproc))}
    computed = {**threads, **_ASYNC, **_recorder(order, torch)}
    computed |= _interfaces(interface, order.master_addr)
    own = matching(session, SESSION)
    own["PATH"] = ":".join(filter(None, (str(PurePosixPath(python).parent), own.get("PATH", ""))))
    chosen = _interfaces(order.interface, order.master_addr)
    made = {**own, **computed, **forwarded, **job, **chosen, **order.environment}
    return {**made, **answering_deepspeed(made)}


def place(order: Order, local_rank: int) -> dict[str, str]:
    """A rank's place in the job, and where the ranks meet: what torchrun's agent says in the same variables.

    Source: torch/distributed/elastic/agent/server/local_elastic_agent.py. The store is there before the ranks
    (TORCHELASTIC_USE_AGENT_STORE), and nothing is started twice.
    """
    rank, world_size = str(order.first_rank + local_rank), str(order.world_size)
    return {
        "RANK": rank,
        "WORLD_SIZE": world_size,
        "LOCAL_RANK": str(local_rank),
        "LOCAL_WORLD_SIZE": str(order.nproc),
        "GROUP_RANK": str(order.node_rank),
        "GROUP_WORLD_SIZE": str(order.nnodes),
        "ROLE_NAME": "default",
        "ROLE_RANK": rank,
        "ROLE_WORLD_SIZE": world_size,
        "MASTER_ADDR": order.master_addr,
        "MASTER_PORT": str(order.master_port),
        "TORCHELASTIC_RUN_ID": order.job_id,
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
        "TORCHELASTIC_MAX_RESTARTS": "0",
    }


def _recorder(order: Order, torch: str) -> dict[str, str]:
    """PyTorch's flight recorder: on, and where its dumps go. Its variables got new names in torch 2.10."""
    found = re.match(r"(\d+)\.(\d+)", torch)
    is_old = found is not None and (int(found[1]), int(found[2])) < (2, 10)
    size, path = _OLD_NAMES if is_old else _NAMES
    return {
        FLIGHT: order.flight,
        size: _REMEMBERED,
        path: order.flight,
        "TORCH_NCCL_DUMP_ON_TIMEOUT": "1",
    }


def _interfaces(name: str, master_addr: str) -> dict[str, str]:
    """NCCL matches by prefix unless told `=`; Gloo wants one exact name (NCCL's `^lo` is fatal to it).

    Of an interface that has both, Gloo takes the IPv4 address (gloo/transport/tcp/device.cc):
    where nodes have IPv6 addresses it goes by the node's own name.
    """
    if not name:
        return {}
    if ":" in master_addr:
        return {"NCCL_SOCKET_IFNAME": f"={name}", "NCCL_SOCKET_FAMILY": "AF_INET6"}
    return {"NCCL_SOCKET_IFNAME": f"={name}", "GLOO_SOCKET_IFNAME": name}
