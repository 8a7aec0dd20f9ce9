"""`ranks`: runs a function as N gloo ranks on this machine, with a time-out, and collects every failure."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Protocol

import pytest

from runtime.topology import Topology
from tests.distributed.launching import Launcher, free_port

# Ranks are forked from one process that has imported torch, which saves 1.6 s of CPU for each, and what a
# first optimizer imports, which saves 1.1 s.
_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["torch", "torch._dynamo", "torch.distributed", "runtime.train.build"])


class Ranks(Protocol):
    """Runs `function(topology, *arguments)` in each of `world_size` processes; returns their results by rank.

    `function` is at the top level of a module; its arguments and its result can be pickled. When a rank
    raises, dies or is late, the others are killed and the test fails with every rank's account.
    """

    def __call__(
        self,
        function: Callable[..., Any],
        world_size: int,
        *arguments: Any,
        timeout_seconds: float = 60.0,
        environment: Mapping[str, str] | None = None,
    ) -> list[Any]: ...


def _environment(rank: int, world_size: int, port: int) -> dict[str, str]:
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world_size),
        "LOCAL_WORLD_SIZE": str(world_size),
        "GROUP_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
    }


def _be_rank(
    pipe: Connection,
    environment: dict[str, str],
    deadline: float,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> None:
    import torch

    os.environ.update(environment)
    torch.set_num_threads(1)
    faulthandler.dump_traceback_later(max(0.1, deadline - time.monotonic() - 1), exit=False)
    try:
        pipe.send((True, function(Topology.from_environment(environment), *arguments)))
    except BaseException:
        pipe.send((False, traceback.format_exc()))
    finally:
        faulthandler.cancel_dump_traceback_later()


def _answer(pipe: Connection, process: BaseProcess) -> tuple[bool, Any]:
    try:
        answer: tuple[bool, Any] = pipe.recv()
    except EOFError:
        process.join(5)
        return False, f"died without a word, exit status {process.exitcode}"
    return answer


def _collect(pipes: dict[Connection, int], processes: list[BaseProcess], deadline: float) -> dict[int, Any]:
    """Answers by rank until all have come, the deadline has passed, or 3 s after the first failure."""
    answers: dict[int, Any] = {}
    while pipes and time.monotonic() < deadline:
        for ready in wait(list(pipes), timeout=max(0.0, deadline - time.monotonic())):
            assert isinstance(ready, Connection)
            rank = pipes.pop(ready)
            answers[rank] = _answer(ready, processes[rank])
            if not answers[rank][0]:
                deadline = min(deadline, time.monotonic() + 3)
    return answers


@pytest.fixture
def launch() -> Iterator[Callable[..., Launcher]]:
    """Starts launchers, and ends whatever a failing test leaves of them."""
    launchers: list[Launcher] = []

    def start(*words: Any, **options: Any) -> Launcher:
        launchers.append(Launcher(*words, **options))
        return launchers[-1]

    yield start
    for launcher in launchers:
        launcher.close()


@pytest.fixture
def ranks() -> Ranks:
    def run(
        function: Callable[..., Any],
        world_size: int,
        *arguments: Any,
        timeout_seconds: float = 60.0,
        environment: Mapping[str, str] | None = None,
    ) -> list[Any]:
        port, deadline = free_port(), time.monotonic() + timeout_seconds
        processes: list[BaseProcess] = []
        pipes: dict[Connection, int] = {}
        for rank in range(world_size):
            ours, theirs = _SERVER.Pipe(duplex=False)
            variables = {**_environment(rank, world_size, port), **(environment or {})}
            process = _SERVER.Process(
                target=_be_rank, args=(theirs, variables, deadline, function, arguments), daemon=True
            )
            process.start()
            theirs.close()
            processes.append(process)
            pipes[ours] = rank
        connections = list(pipes)
        try:
            answers = _collect(pipes, processes, deadline)
        finally:
            _end(processes, connections)
        _raise_failures(answers, world_size, timeout_seconds)
        return [answers[rank][1] for rank in range(world_size)]

    return run


def _end(processes: list[BaseProcess], connections: list[Connection]) -> None:
    for process in processes:
        process.join(0.5)
        if process.is_alive():
            process.kill()
        process.join()
        process.close()
    for connection in connections:
        connection.close()


def _raise_failures(answers: dict[int, Any], world_size: int, timeout_seconds: float) -> None:
    accounts = [
        f"rank {rank}: {answers[rank][1]}"
        if rank in answers
        else f"rank {rank}: not done after {timeout_seconds:.0f} s, or ended because of another rank"
        for rank in range(world_size)
        if rank not in answers or not answers[rank][0]
    ]
    assert not accounts, "\n".join(accounts)
