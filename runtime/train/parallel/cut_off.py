"""What an exception has cut off among collectives: before the next one, ranks make sure that all were.

A rank that goes on alone would meet the others in collectives of other units, and mix their numbers. Nothing
is asked while nothing is cut off, and then not by a collective but through the job's store.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from torch import nn

from runtime.comm.group import DEFAULT_TIMEOUT_SECONDS
from runtime.errors import JobFailed
from runtime.train.parallel.fsdp import (
    end_backward,
    in_backward,
    is_cut_off,
    leave_forward,
    put_shards_back,
    unit_states,
)
from runtime.train.parallel.gather_order import GatherOrder, refuse_apart
from runtime.train.parallel.gathered import Gathered

_POLL_SECONDS = 0.05
# One rank's time-out ends the others' collectives within milliseconds; one that hangs is to be named soon.
_APART_SECONDS = 0.2
_GRACE_SECONDS = 3.0  # in which the others' collectives run into the same time-out, and find the note


class CutOffs:
    """Passes of one model that exceptions have cut off on this rank.

    Args:
        session: a word that all ranks share and no other model has.
        gathers: whether forwards and backwards gather parameters from other ranks (stage 3).
        order: what this rank gathers then, where other ranks hold parts.
    """

    def __init__(
        self, model: nn.Module, session: str, *, gathers: bool, order: GatherOrder | None = None
    ) -> None:
        self._model, self._session, self._gathers, self._order = model, session, gathers, order
        self._number = 0
        self._place: str | None = None

    def note_forward(self) -> None:
        """Takes note of a forward that is being left by an exception."""
        if self._gathers and self._place is None:
            self._place = self._now("forward")

    def leave_forward(self, error: BaseException, gathered: Gathered | None) -> None:
        """Ends a forward that an exception is leaving, so that the next one is a forward of its own.

        Raises:
            JobFailed: another rank was the cause.
        """
        if in_backward():  # activation checkpointing ends a recomputation there by an exception
            return
        self.note_forward()
        leave_forward(self._model)
        put_shards_back(self._model)
        if gathered is not None:
            gathered.note_cut_off()
        if isinstance(error, RuntimeError):
            self.explain(error)

    def note_missing(self) -> None:
        """Takes note that a micro-step ends on this rank without a backward."""
        if self._gathers and self._place is None:
            self._place = self._now("no backward")

    def end(self, *, with_step: bool = False) -> None:
        """Ends what was cut off, once it is known that it was on all ranks. Collective, if there is anything.

        Args:
            with_step: the micro-step ends here. Up to stage 2 its reductions are then made up for, as the
                other ranks have made them; nobody needs to be asked.

        Raises:
            JobFailed: other ranks have gone on without an exception.
        """
        if self._place is None and is_cut_off(self._model):
            reduces = any(state.reduce_grads for state in unit_states(self._model))
            if self._gathers or (reduces and not with_step):
                self._place = self._now("backward")
        if self._place is not None and dist.get_world_size() > 1:
            self._ask(self._place)
        self._place = None
        end_backward(self._model)

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """What is done within it is explained where it fails."""
        try:
            yield
        except RuntimeError as error:
            self.explain(error)
            raise

    def explain(self, error: RuntimeError) -> None:
        """Says so where a collective has failed because another rank was cut off alone, or used other parts.

        Raises:
            JobFailed: it was, or has.
        """
        text = str(error)
        if not isinstance(error, dist.DistError) and "gloo" not in text and "NCCL" not in text:
            return
        try:
            store = self._store()
            others = [rank for rank in range(dist.get_world_size()) if store.check([self._key(rank)])]
            store.set(self._key("gone on"), "1")
        except RuntimeError:  # the store has gone with its rank
            return
        if others and dist.get_rank() not in others:
            _fail(others, error)
        if self._order is not None:
            self._compare(self._order, error)

    def _compare(self, order: GatherOrder, error: RuntimeError) -> None:
        """Compares what ranks have gathered, through the store, once their collectives have failed as well.

        The store goes with the first rank, which therefore stays until the others have read.
        """
        own = dist.get_rank()
        keys = {rank: f"{self._key(rank)}/gathered" for rank in range(dist.get_world_size())}
        said: dict[int, list[int]] = {}
        with contextlib.suppress(RuntimeError):  # the store goes with its rank
            store = self._store()
            store.set(keys[own], json.dumps(order.gathered))
            _wait(store, keys.values(), _APART_SECONDS)
            said = {rank: json.loads(store.get(key)) for rank, key in keys.items() if store.check([key])}
            store.set(f"{keys[own]}/read", "1")
            _wait(store, [f"{keys[rank]}/read" for rank in said], _APART_SECONDS)
        refuse_apart(order.names, said, error)

    def _ask(self, place: str) -> None:
        """Waits until every rank has said where it was cut off, as long as a collective may take."""
        ranks, ours = range(dist.get_world_size()), dist.get_rank()
        deadline = time.monotonic() + _timeout_seconds() + _GRACE_SECONDS
        try:
            store = self._store()
            store.set(self._key(ours), place)
            while not store.check([self._key(rank) for rank in ranks]):
                if time.monotonic() > deadline or store.check([self._key("gone on")]):
                    _fail([rank for rank in ranks if store.check([self._key(rank)])])
                time.sleep(_POLL_SECONDS)
            places = [store.get(self._key(rank)) for rank in ranks]
        except RuntimeError as e:  # the store has gone with its rank
            _fail([ours], e)
        if apart := [rank for rank in ranks if places[rank] != places[0]]:
            _fail(apart)
        self._number += 1

    def _now(self, what: str) -> str:
        """Where in a pass this rank is, as far as its collectives depend on it."""
        states = unit_states(self._model)
        where = [
            (s._training_state.name, s._sharded_state.name, len(s._post_forward_indices)) for s in states
        ]
        return repr((what, where if self._gathers else None))

    def _key(self, rank: int | str) -> str:
        return f"clusterwright/cut_off/{self._session}/{self._number}/{rank}"

    def _store(self) -> Any:
        return dist.distributed_c10d._get_default_store()


def _wait(store: Any, keys: Iterable[str], seconds: float) -> None:
    """Until all of these are there, or the time is over."""
    deadline, wanted = time.monotonic() + seconds, list(keys)
    while not store.check(wanted) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)


def _fail(ranks: list[int], cause: Exception | None = None) -> NoReturn:
    raise JobFailed(
        "go on after an exception",
        found=f"it came on rank {', '.join(map(str, ranks))} alone, in collectives that the others wait in",
        fix="Let no rank catch it alone: agree on it before the next call of the engine, or let the job end "
        "and start again from its last checkpoint. What ran out of memory needs smaller micro-batches.",
    ) from cause


def _timeout_seconds() -> float:
    """How long a collective may take."""
    group: Any = dist.group.WORLD
    device = torch.device("cuda" if "nccl" in dist.get_backend_config() else "cpu")
    try:
        return float(group._get_backend(device).options._timeout.total_seconds())
    except (AttributeError, RuntimeError):
        return DEFAULT_TIMEOUT_SECONDS
