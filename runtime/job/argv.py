"""Every command line that the launcher runs, built by pure functions."""

from __future__ import annotations

import shlex

from runtime.job.hostfile import Host
from runtime.job.spec import Order

CONNECT_SECONDS = 8
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
    return (python, "-P", "-u", "-m", "runtime.node")


def ssh_argv(host: Host, *, python: str, ssh_config: str = "") -> tuple[str, ...]:
    """The same on another machine; what a job is travels over standard input."""
    return (*ssh_words(ssh_config), "--", target_of(host), shlex.join(node_argv(python)))


def ssh_words(ssh_config: str) -> tuple[str, ...]:
    """ssh as the launcher uses it, up to the node."""
    config = ("-F", ssh_config) if ssh_config else ()
    return ("ssh", "-T", *config, *(word for option in _SSH_OPTIONS for word in ("-o", option)))


def target_of(host: Host) -> str:
    """A node as ssh takes it."""
    return f"{host.user}@{host.name}" if host.user else host.name


def rank_argv(local_rank: int, *, python: str) -> tuple[str, ...]:
    """What looks after one rank of a node. The user's words go by the environment (`spec.to_variables`)."""
    return (python, "-P", "-m", "runtime.launch.rank", str(local_rank))


def store_argv(order: Order, *, python: str, listener: int) -> tuple[str, ...]:
    """The store at which the ranks meet, on the node of rank 0; `listener` is its socket's descriptor."""
    place = (str(listener), order.master_addr, str(order.master_port))
    return (python, "-P", "-m", "runtime.launch.store", *place)


def program_argv(order: Order, local_rank: int, *, python: str) -> tuple[str, ...]:
    """The user's program as one rank runs it."""
    program, *arguments = order.words
    if order.local_rank_option:
        arguments = [f"{order.local_rank_option}={local_rank}", *arguments]
    if order.kind == "program":
        return (program, *arguments)
    module = ("-m",) if order.kind == "module" else ()
    return (python, "-u", *module, program, *arguments)
