"""Every command line that the launcher runs, built by pure functions."""

from __future__ import annotations

import shlex

from runtime.launch.hostfile import Host
from runtime.launch.spec import Order

CONNECT_SECONDS = 8
# What torchrun calls the way in which our agents meet (see `runtime.launch.agent`).
RENDEZVOUS = "clusterwright"
_SSH_OPTIONS = (
    "BatchMode=yes",
    "StrictHostKeyChecking=yes",
    f"ConnectTimeout={CONNECT_SECONDS}",
    "ConnectionAttempts=1",
    "ServerAliveInterval=5",
    "ServerAliveCountMax=3",
    "ControlPath=none",
    "ForwardX11=no",
    "LogLevel=ERROR",
)


def node_argv(python: str) -> tuple[str, ...]:
    """The node's side of the control channel. -P: a folder `runtime` in the working directory is not ours."""
    return (python, "-P", "-u", "-m", "runtime.launch.node")


def ssh_argv(host: Host, *, python: str, ssh_config: str = "") -> tuple[str, ...]:
    """The same on another machine; what a job is travels over standard input."""
    config = ("-F", ssh_config) if ssh_config else ()
    options = tuple(word for option in _SSH_OPTIONS for word in ("-o", option))
    target = f"{host.user}@{host.name}" if host.user else host.name
    return ("ssh", "-T", *config, *options, "--", target, shlex.join(node_argv(python)))


def agent_argv(order: Order, *, python: str, listener: int | None = None) -> tuple[str, ...]:
    """torchrun's agent on a node, which starts one `runtime.launch.rank` for each slot.

    `listener` is the descriptor of the socket on which node 0 has the ranks meet.

    torchrun reads `$` in arguments as a macro (torch/distributed/elastic/utils/api.py), so the user's words
    go by the environment (`spec.to_variables`).
    """
    settings = [f"timeout={max(1, round(order.rendezvous_seconds))}", f"rank={order.node_rank}"]
    if listener is not None:
        settings.append(f"listener={listener}")
    return (
        python,
        "-P",
        "-u",
        "-m",
        "runtime.launch.agent",
        f"--nnodes={order.nnodes}",
        f"--nproc-per-node={order.nproc}",
        f"--rdzv-backend={RENDEZVOUS}",
        f"--rdzv-endpoint={order.master_addr}:{order.master_port}",
        f"--rdzv-id={order.job_id}",
        f"--rdzv-conf={','.join(settings)}",
        "--max-restarts=0",
        "--no-python",
        python,
        "-P",
        "-m",
        "runtime.launch.rank",
        "${local_rank}",
    )


def program_argv(order: Order, *, python: str) -> tuple[str, ...]:
    """The user's program as one rank runs it."""
    if order.kind == "program":
        return order.words
    module = ("-m",) if order.kind == "module" else ()
    return (python, "-u", *module, *order.words)
