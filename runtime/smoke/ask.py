"""The first stage, done: every node is asked what it is, its clock compared, its processor and disk tried."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import TypeVar

from runtime.job.spec import HOSTFILE
from runtime.probes.host import Files, Survey
from runtime.probes.preflight_checks import ranks_of
from runtime.remote.frames import Frame
from runtime.remote.session import Session
from runtime.smoke.host.disk_write import slow_disks
from runtime.smoke.host.registry import Clock, Nodes, Written, conforming, probes
from runtime.smoke.network import matrix
from runtime.untrusted.conform import Malformed

_SURVEY_SECONDS = 10.0
_CLOCK_SECONDS = 2.0
# Tenths of a second where the kernel remembers the files; a disk over a network is asked for each.
_FILES_SECONDS = 30.0
_COMPUTE_SECONDS = 0.15
_WRITE_SECONDS = 0.2
# What is slow is slow for seconds: what a service does when its node has just been set up is not.
_PAUSES_SECONDS = (0.0, 0.5, 1.0, 2.0, 4.0)
_Measured = TypeVar("_Measured")
CONFIG_PATH = str(PurePosixPath(HOSTFILE).parent)


def ask(session: Session) -> Nodes:
    """Asks every node that has said what it is."""
    hosts = [host for host in session.facts if session.lines[host].status is None]
    session.broadcast(
        "survey", hosts=hosts, names=list(session.lines), config=CONFIG_PATH, probes=list(probes())
    )
    surveys = _conforming(session, session.gather("surveyed", _SURVEY_SECONDS, hosts=hosts))
    compute = _compute(session, list(surveys))
    return Nodes(
        ranks=ranks_of(session.job),
        facts=session.facts,
        surveys=surveys,
        clocks={host: clock for host in surveys if (clock := _clock(session, host))},
        compute=compute,
        disks=_disks(session, list(surveys)),
        files=_files(session, list(compute)),
    )


def _conforming(session: Session, answers: Mapping[str, Frame]) -> dict[str, Survey]:
    """The surveys; a node whose probes gave something else than was agreed is not heard any more."""
    surveys = {}
    for host, frame in answers.items():
        try:
            surveys[host] = conforming(frame["survey"])
        except Malformed as e:
            session.refuse(host, e)
    return surveys


def _clock(session: Session, host: str) -> Clock | None:
    """The node's clock against ours, by half the way there and back (as NTP does)."""
    asked, sent = time.time(), time.monotonic()
    session.send(host, "clock")
    answer = session.gather("clock", _CLOCK_SECONDS, hosts=[host]).get(host)
    if answer is None:
        return None
    half = (time.monotonic() - sent) / 2
    return Clock(offset=answer["now"] - asked - half, error=half)


def lasting(
    first: Mapping[str, _Measured],
    *,
    slow: Callable[[Mapping[str, _Measured]], Iterable[str]],
    rate: Callable[[_Measured], float],
    again: Callable[[str], _Measured | None],
    pause: Callable[[float], None],
) -> dict[str, _Measured]:
    """The best of each node: those that look slow are measured again and again, one at a time.

    Nodes may share a processor or a disk, and one that looks slow may only have waited for another.
    """
    best = dict(first)
    for seconds in _PAUSES_SECONDS:
        hosts = sorted(slow(best))
        if not hosts:
            break
        pause(seconds)
        for host in hosts:
            if (measured := again(host)) is not None:
                best[host] = max(best[host], measured, key=rate)
    return best


def _compute(session: Session, hosts: Sequence[str]) -> dict[str, float]:
    return lasting(
        _hash(session, hosts),
        slow=matrix.slow_nodes,
        rate=float,
        again=lambda host: _hash(session, [host]).get(host),
        pause=session.pause,
    )


def _hash(session: Session, hosts: Sequence[str]) -> dict[str, float]:
    session.broadcast("compute", hosts=hosts, seconds=_COMPUTE_SECONDS)
    answers = session.gather("computed", _SURVEY_SECONDS, hosts=hosts)
    return {host: float(frame["rate"]) for host, frame in answers.items()}


def _disks(session: Session, hosts: Sequence[str]) -> dict[str, Written]:
    return lasting(
        _write(session, hosts),
        slow=slow_disks,
        rate=lambda one: one.rate,
        again=lambda host: _write(session, [host]).get(host),
        pause=session.pause,
    )


def _write(session: Session, hosts: Sequence[str]) -> dict[str, Written]:
    session.broadcast("write", hosts=hosts, seconds=_WRITE_SECONDS)
    answers = session.gather("written", _SURVEY_SECONDS, hosts=hosts)
    return {host: Written(rate=frame["rate"], problem=frame["problem"]) for host, frame in answers.items()}


def _files(session: Session, hosts: Sequence[str]) -> dict[str, Files]:
    session.broadcast("files", hosts=hosts, timeout=_FILES_SECONDS)
    answers = session.gather("files", _FILES_SECONDS + 1.0, hosts=hosts)
    silent = Files(known=True, problem=f"it did not say in {_FILES_SECONDS:.0f} s")
    return {host: answers[host]["files"] if host in answers else silent for host in hosts}
