"""What streams say of the network, less what processors and lost packets account for. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from runtime.probes.stream import PairResult
from runtime.smoke.network import matrix
from runtime.smoke.network.pair_schedule import Pair

# A stream that kept an end's processor busy for this share of its time is not held back by the network: one
# that waits for the network sleeps. Seen: 0.90 to 1.00 over loopback (1.3 to 5.8 GB/s within a minute), 0.66
# to 1.00 between four nodes on two cores (24 runs, 288 pairs), 0.17 to 0.49 behind a limit of 1 Gbit/s.
_PROCESSOR_BOUND = 0.6
# A way that loses packets for good; a healthy one sent up to 0.1 % again on a busy machine.
_LOSSY_SHARE = 0.05
_FEWEST_LOST = 10

Results = Mapping[Pair, PairResult]


def rates_of(results: Results) -> dict[Pair, float]:
    """Bytes in a second of each measured pair: 0 where nothing arrived; wrong bytes are another check's.

    What loss leaves of a rate is luck, so all ways that lose packets count as equally slow.
    """
    found = {pair: result.bytes_per_s or 0.0 for pair, result in results.items() if not is_wrong(result)}
    lossy = _lossy(found, results)
    most = max((found[pair] for pair in lossy), default=0.0)
    return found | dict.fromkeys(lossy, most)


def excused(results: Results) -> frozenset[Pair]:
    """Pairs that say nothing against the network: a processor held them back, or lost acknowledgements."""
    bound = {pair for pair, result in results.items() if processor_bound(result)}
    lossy = _lossy(rates_of(results), results)
    return frozenset(bound | {pair[::-1] for pair in lossy if pair[::-1] not in lossy})


def _lossy(rates: Mapping[Pair, float], results: Results) -> set[Pair]:
    """Slow pairs that lose packets for good."""
    least = matrix.of_pairs(rates).least if rates else 0.0
    return {pair for pair, rate in rates.items() if rate < least and loses_packets(results[pair])}


def best_of(old: PairResult, new: PairResult) -> PairResult:
    """The better bandwidth and the better latency of one pair: load slows it, and never speeds it up."""
    faster = max(old, new, key=lambda result: (not result.error, result.bytes_per_s or 0.0))
    timed = [result for result in (old, new) if result.rtt_p50_s is not None]
    sooner = min(timed, key=lambda result: result.rtt_p50_s or 0.0, default=faster)
    return replace(faster, rtt_p50_s=sooner.rtt_p50_s, rtt_p99_s=sooner.rtt_p99_s)


def processor_bound(result: PairResult) -> bool:
    """Whether a processor held the stream back, and not the network."""
    return (result.busy_share or 0.0) >= _PROCESSOR_BOUND


def loses_packets(result: PairResult) -> bool:
    """Whether so much was sent again that no second look is needed."""
    return (result.resent_share or 0.0) >= _LOSSY_SHARE and (result.retransmits or 0) >= _FEWEST_LOST


def is_wrong(result: PairResult) -> bool:
    """Whether other bytes arrived than were sent."""
    return "other bytes" in result.error
