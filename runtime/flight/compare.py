"""From what all ranks remember to who is behind, and where they first did different things: pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from runtime.flight.dump import Call, Dump


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing to know: the ranks that it is about, and what. `conclusive` unless nobody stands out."""

    ranks: tuple[int, ...]
    found: str
    conclusive: bool = True


def compare(dumps: Sequence[Dump], *, world_size: int = 0) -> tuple[Finding, ...]:
    """Missing dumps, then for each group the first difference, then who is behind; else that nobody is.

    Args:
        world_size: how many ranks there were; as many as the last rank with a dump tells where 0.
    """
    by_rank = {dump.rank: dump for dump in dumps}
    ranks = range(world_size or max(by_rank, default=-1) + 1)
    missing = tuple(rank for rank in ranks if rank not in by_rank)
    found = list(_missing(missing))
    for group, calls in _by_group(by_rank).items():
        found += _of_group(group, calls)
    if not any(finding.conclusive for finding in found):
        found += _nobody(dumps)
    return tuple(found)


# The group of all ranks is the first that a job makes; its name is 0 (torch/distributed/distributed_c10d.py).
_WORLD = "0"
_MOST_NAMED = 64


def _by_group(by_rank: Mapping[int, Dump]) -> dict[str, dict[int, dict[int, Call]]]:
    """The calls of each group by rank and number; of the group of all ranks also ranks that made none."""
    groups: dict[str, dict[int, dict[int, Call]]] = defaultdict(lambda: defaultdict(dict))
    for rank, dump in by_rank.items():
        for call in dump.calls:
            groups[call.group][rank][call.number] = call
    if _WORLD in groups:
        groups[_WORLD] = {rank: groups[_WORLD].get(rank, {}) for rank in by_rank}
    return groups


def _missing(ranks: tuple[int, ...]) -> Iterator[Finding]:
    if ranks:
        found = f"{named(ranks)} left no dump: stopped, lost, or killed before it could write one"
        yield Finding(ranks=ranks, found=found)


def _of_group(group: str, calls: Mapping[int, Mapping[int, Call]]) -> Iterator[Finding]:
    differing = _first_difference(calls)
    if differing is not None:
        yield _difference(
            group, differing, {rank: own[differing] for rank, own in calls.items() if differing in own}
        )
        return
    last = {rank: max(own, default=0) for rank, own in calls.items()}
    furthest = max(last.values(), default=0)
    behind = tuple(sorted(rank for rank, number in last.items() if number < furthest))
    if not behind or not furthest:
        return
    ahead = tuple(sorted(last.keys() - set(behind)))
    waiting = calls[ahead[0]][furthest]
    for rank in behind:
        own = calls[rank].get(last[rank])
        did = f"its last was call {last[rank]}, {own.words}" if own else "it has made none"
        found = (
            f"rank {rank} is behind in {_group_words(group)}: {did}; "
            f"{named(ahead)} is in call {furthest}, {waiting.words}"
        )
        yield Finding(ranks=(rank,), found=found)


def _first_difference(calls: Mapping[int, Mapping[int, Call]]) -> int | None:
    """The first number at which ranks that remember it did different things."""
    done: dict[int, set[tuple[str, str]]] = defaultdict(set)
    for own in calls.values():
        for number, call in own.items():
            done[number].add((call.operation, call.shape))
    return min((number for number, kinds in done.items() if len(kinds) > 1), default=None)


def _difference(group: str, number: int, calls: Mapping[int, Call]) -> Finding:
    """Those that do what most do not; everyone, where there is no majority."""
    counted = Counter((call.operation, call.shape) for call in calls.values())
    most, count = counted.most_common(1)[0]
    odd = [rank for rank, call in calls.items() if (call.operation, call.shape) != most]
    ranks = tuple(sorted(odd if count > len(calls) / 2 else calls))
    by_words: dict[str, list[int]] = {}
    for rank in sorted(calls):
        by_words.setdefault(calls[rank].words, []).append(rank)
    said = "; ".join(f"{named(tuple(own))}: {words}" for words, own in by_words.items())
    return Finding(
        ranks=ranks, found=f"call {number} of {_group_words(group)} is not the same on all ranks: {said}"
    )


def _nobody(dumps: Sequence[Dump]) -> Iterator[Finding]:
    """All are at the same place: NCCL says at least who did not finish it."""
    last = {dump.rank: dump.calls[-1] for dump in dumps if dump.calls}
    unfinished = tuple(sorted(rank for rank, call in last.items() if call.state != "completed"))
    if last and unfinished and len(unfinished) < len(last):
        call = last[unfinished[0]]
        found = f"{named(unfinished)} did not finish call {call.number}, {call.words}; the others did"
        yield Finding(ranks=unfinished, found=found)
    elif last:
        call = next(iter(last.values()))
        found = f"no rank is behind: each ends with call {call.number}, {call.words}"
        yield Finding(ranks=tuple(sorted(last)), found=found, conclusive=False)


def _group_words(group: str) -> str:
    return "the group of all ranks" if group == _WORLD else f"group {group}"


def named(ranks: Sequence[int]) -> str:
    """`rank 2`, `ranks 1, 3`, `ranks 0-3`; of many some, and how many more."""
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    if len(ranks) > 2 and list(ranks) == list(range(ranks[0], ranks[-1] + 1)):
        return f"ranks {ranks[0]}-{ranks[-1]}"
    more = f" and {len(ranks) - _MOST_NAMED} more" * (len(ranks) > _MOST_NAMED)
    return f"ranks {', '.join(map(str, ranks[:_MOST_NAMED]))}{more}"
