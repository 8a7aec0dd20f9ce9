"""The second stage, done: every ordered pair measured in rounds of disjoint pairs, what looks bad again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

from runtime.probes.job_firewall import Intrusion
from runtime.probes.stream import Bounds, PairResult
from runtime.remote.session import Session
from runtime.smoke.network.pair_checks import suspicious
from runtime.smoke.network.pair_schedule import Pair, halves, packed
from runtime.smoke.network.rates import best_of

NORMAL = Bounds(connect_seconds=2.0, latency_seconds=0.05, stream_seconds=0.2)
QUICK = Bounds(connect_seconds=2.0, latency_seconds=0.02, stream_seconds=0.1)
# One segment that was lost costs a stream 200 ms (TCP's least time-out); a second look outlasts a few.
_SECOND_LOOK = Bounds(connect_seconds=2.0, latency_seconds=0.05, stream_seconds=0.6)
_SERVE_SECONDS = 3.0
_INTRUDE_SECONDS = 10.0
# A pair that looks slow is measured so often again; what that shows may raise a suspicion of another one.
_CONFIRMATIONS = 2
# So few pairs are measured again one at a time: nodes of a lab share processors, those of a rack a switch.
_MOST_ALONE = 16
_MOST_LOOKS = 10

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """Where a node takes measurements."""

    address: str
    port: int


def measure_pairs(
    session: Session,
    pairs: Sequence[Pair],
    *,
    bounds: Bounds,
    compute: Mapping[str, float],
    progress: Progress,
) -> dict[Pair, PairResult]:
    """Results of the wanted pairs, whose nodes reach each other; one that never answered is absent."""
    wanted = set(pairs)
    hosts = [host for host in session.lines if any(host in pair for pair in wanted)]
    places = _serve(session, hosts)
    steps = [tuple(pair for pair in half if pair in wanted) for half in halves(hosts)]
    results: dict[Pair, PairResult] = {}
    for number, half in enumerate(steps, start=1):
        progress(f"measuring pairs, step {number} of {len(steps)}")
        results |= _measure(session, half, places, bounds)
    _confirm(session, results, places, compute=compute, progress=progress)
    return results


def intrude(session: Session, hosts: Sequence[str]) -> dict[str, Intrusion]:
    """What a user without rights on each of the nodes gets; who does not answer is absent."""
    session.broadcast("intrude", hosts=hosts)
    answers = session.gather("intruded", _INTRUDE_SECONDS, hosts=hosts)
    return {host: frame["intrusion"] for host, frame in answers.items()}


def _confirm(
    session: Session,
    results: dict[Pair, PairResult],
    places: Mapping[str, Where],
    *,
    compute: Mapping[str, float],
    progress: Progress,
) -> None:
    """Measures again, and longer, what looks bad; the best of all counts."""
    times: Counter[Pair] = Counter()
    for _ in range(_MOST_LOOKS):
        again = [pair for pair in suspicious(results, compute) if times[pair] < _CONFIRMATIONS]
        if not again:
            break
        alone = tuple((pair,) for pair in again)
        for half in alone if len(again) <= _MOST_ALONE else packed(again):
            progress(f"measuring {len(again)} slow pairs again: {' -> '.join(half[0])}")
            for pair, result in _measure(session, half, places, _SECOND_LOOK).items():
                results[pair] = best_of(results[pair], result)
        times.update(again)


def _serve(session: Session, hosts: Sequence[str]) -> dict[str, Where]:
    peers = [facts.address for facts in session.facts.values()]
    session.broadcast("serve", hosts=hosts, token=session.token, peers=peers)
    answers = session.gather("serving", _SERVE_SECONDS, hosts=hosts)
    return {host: Where(address=frame["address"], port=frame["port"]) for host, frame in answers.items()}


def _measure(
    session: Session, pairs: Sequence[Pair], places: Mapping[str, Where], bounds: Bounds
) -> dict[Pair, PairResult]:
    """Pairs that share no node, at the same time; a frame says which pair it is about."""
    session.ping()
    asked = {source: target for source, target in pairs if target in places}
    for source, target in asked.items():
        place, values = asdict(places[target]), {"bounds": asdict(bounds), "token": session.token}
        session.send(source, "measure", target=target, **place, **values)
    answers = session.gather(
        "measured",
        bounds.most_seconds,
        hosts=asked,
        fits=lambda host, frame: bool(frame["result"].target == asked[host]),
    )
    found = (frame["result"] for frame in answers.values())
    return {(result.source, result.target): result for result in found}
