"""The second stage, judged: from measured pairs to findings, one for each fault. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import median

from runtime.errors import BadInput
from runtime.probes.finding import Finding
from runtime.probes.host import Survey
from runtime.probes.stream import PairResult
from runtime.smoke.network import matrix
from runtime.smoke.network.candidates import GROUP, RECEIVE, TRANSMIT
from runtime.smoke.network.localize import (
    COMPUTE,
    DIRECTION,
    EVERYTHING,
    LINK,
    NODE,
    UNCLEAR,
    Verdict,
    to_confirm,
    verdicts,
    where,
)
from runtime.smoke.network.matrix import rate_text
from runtime.smoke.network.pair_schedule import Pair
from runtime.smoke.network.rates import Results, excused, is_wrong, loses_packets, processor_bound, rates_of

# A round trip this many times the usual one, and longer by this, is no load of the moment.
_LATENCY_TIMES = 5.0
_LATENCY_SECONDS = 2e-3
# One stream of plain sockets is not expected to fill a faster network than this.
_STREAM_CEILING = 1e9


def ceiling(surveys: Mapping[str, Survey]) -> float | None:
    """Bytes in a second that the negotiated speed allows one stream; None where an interface does not say."""
    slowest = min((seen.speed_bits for seen in surveys.values()), default=0)
    return min(_STREAM_CEILING, slowest / 8) if slowest else None


def suspicious(results: Results, compute: Mapping[str, float]) -> tuple[Pair, ...]:
    """The pairs to measure once more before anyone is blamed; not those whose fault shows beside the rate."""
    largest = max((result.path_mtu or 0 for result in results.values()), default=0)
    in_a_hole = {
        pair for pair, result in results.items() if result.error and 0 < (result.path_mtu or 0) < largest
    }
    nodes = len({node for pair in results for node in pair})
    found = to_confirm(verdicts(rates_of(results), compute=compute, excused=excused(results)), nodes)
    found = tuple(pair for pair in found if not loses_packets(results[pair]))
    late = [pair for pair, result in results.items() if _is_late(result, results)]
    wrong = [pair for pair, result in results.items() if result.error]
    return tuple(pair for pair in dict.fromkeys((*found, *late, *wrong)) if pair not in in_a_hole)


def judge_pairs(
    results: Results,
    *,
    surveys: Mapping[str, Survey],
    compute: Mapping[str, float],
    ranks: Mapping[str, tuple[int, ...]],
) -> tuple[Finding, ...]:
    """All that the pairs say: wrong bytes, packets that do not pass, late answers, and who is slow."""
    rates = rates_of(results)
    held_back = sum(map(processor_bound, results.values())) > len(results) / 2
    promised = None if held_back else ceiling(surveys)
    said = verdicts(rates, compute=compute, ceiling=promised, excused=excused(results))
    found = [_of_verdict(verdict, rates, results) for verdict in said]
    all_found = [*_contents(results), *_path_mtu(results, surveys), *_latency(results), *found]
    return tuple(_finding(entry, ranks) for entry in all_found if entry is not None)


def reachable_floor(floor: float, surveys: Mapping[str, Survey]) -> None:
    """Refuses a demand that no network of these interfaces could meet; `floor` in bytes a second.

    Raises:
        BadInput: an interface has negotiated less.
    """
    for host, seen in surveys.items():
        if seen.speed_bits and floor > seen.speed_bits / 8:
            raise BadInput(
                f"demand {rate_text(floor)} of every pair of nodes",
                found=f"{seen.interface} of {host} has negotiated {seen.speed_bits / 1e9:g} Gbit/s, "
                f"which is {rate_text(seen.speed_bits / 8)}",
                fix="Lower --least-bandwidth, or see `ethtool` and the cable there.",
            )


def below_floor(results: Results, floor: float, ranks: Mapping[str, tuple[int, ...]]) -> tuple[Finding, ...]:
    """What carries less than somebody demands (bytes a second), whatever the peers of this run do.

    Where a processor held the streams back, nothing is proven of the network: inconclusive.
    """
    rates = {pair: rate for pair, rate in rates_of(results).items() if rate < floor}
    asked = f"less than the {rate_text(floor)} that --least-bandwidth asks for"
    bound = {pair for pair in rates if processor_bound(results[pair])}
    fix = "See the negotiated speed, `tc qdisc show` and who else uses the network."
    busy_fix = "A processor was the limit, not the network: see `top` on both, test again when they are idle."
    if len(rates) > 1 and len(rates) == len(results):
        hosts = tuple(sorted({host for pair in rates for host in pair}))
        found = f"every pair carries {_range(list(rates.values()))}, {asked}"
        said = busy_fix if bound == set(rates) else fix
        return (_finding(("bandwidth", hosts, "everything", found, said, said is fix), ranks),)
    return tuple(
        _finding(
            (
                *("bandwidth", pair, " -> ".join(pair)),
                f"{' -> '.join(pair)} carries {rate_text(rate)}, {asked}",
                *((busy_fix, False) if pair in bound else (fix, True)),
            ),
            ranks,
        )
        for pair, rate in rates.items()
    )


# Check, nodes, where, found, fix, conclusive.
_Said = tuple[str, tuple[str, ...], str, str, str, bool]


def _finding(said: _Said, ranks: Mapping[str, tuple[int, ...]]) -> Finding:
    check, hosts, place, found, fix, conclusive = said
    return Finding(
        check=check,
        hosts=hosts,
        ranks=tuple(rank for host in hosts for rank in ranks[host]),
        found=found,
        fix=fix,
        conclusive=conclusive,
        where=place,
    )


def _contents(results: Results) -> Iterator[_Said]:
    for pair, result in results.items():
        if is_wrong(result):
            fix = "Memory, network card or driver corrupts data: see `ethtool -S` on both, take the node out."
            yield (
                "stream contents",
                pair,
                " -> ".join(pair),
                f"{' -> '.join(pair)}: {result.error}",
                fix,
                True,
            )


def _path_mtu(results: Results, surveys: Mapping[str, Survey]) -> Iterator[_Said]:
    """Whole packets of the smaller interface must arrive; where no packet of UDP does, nothing is proven.

    Where one node is an end of every way that swallows packets, it is named, and not the ways.
    """
    holes: dict[Pair, tuple[int, int]] = {}
    for pair, result in results.items():
        ends = [surveys[host].mtu for host in pair if host in surveys and surveys[host].mtu]
        wanted = min(ends, default=0)
        if result.path_mtu and result.path_mtu < min(wanted, (1 << 16) - 1):
            holes[pair] = (wanted, result.path_mtu)
    common = set.intersection(*(set(pair) for pair in holes)) if holes else set()
    if len(common) == 1 and len({frozenset(pair) for pair in holes}) > 1:
        (node,) = common
        wanted, passed = (
            max(wanted for wanted, _ in holes.values()),
            min(passed for _, passed in holes.values()),
        )
        found = (
            f"{node}: packets of {wanted} bytes, which the interfaces send, do not arrive "
            f"on {len(holes)} ways to and from it; {passed} bytes do"
        )
        fix = f"Raise the MTU of the switch port or tunnel of {node}, or set all interfaces to {passed}."
        yield "path mtu", (node,), node, found, fix, True
        return
    for pair, (wanted, passed) in holes.items():
        found = (
            f"{' -> '.join(pair)}: packets of {wanted} bytes, which both interfaces send, do not arrive; "
            f"{passed} bytes do"
        )
        fix = f"Raise the MTU of the switch or tunnel between them, or set both to {passed}."
        yield "path mtu", pair, " -> ".join(pair), found, fix, True


def _latency(results: Results) -> Iterator[_Said]:
    for pair, result in results.items():
        if _is_late(result, results):
            usual = _usual_latency(results)
            found = f"{' -> '.join(pair)}: a round trip takes {_ms(result.rtt_p50_s)}, usually {_ms(usual)}"
            fix = f"See `ping {pair[1]}` and `tc qdisc show` on {pair[0]}, and the way between the two."
            yield "latency", pair, " -> ".join(pair), found, fix, True


def _is_late(result: PairResult, results: Results) -> bool:
    usual = _usual_latency(results)
    return result.rtt_p50_s is not None and result.rtt_p50_s > _LATENCY_TIMES * usual + _LATENCY_SECONDS


def _usual_latency(results: Results) -> float:
    return median([r.rtt_p50_s for r in results.values() if r.rtt_p50_s is not None] or [0.0])


def _ms(seconds: float | None) -> str:
    return f"{(seconds or 0.0) * 1e3:.2f} ms"


def _of_verdict(verdict: Verdict, rates: Mapping[Pair, float], results: Results) -> _Said | None:
    """A verdict in words; a slow processor is the first stage's to say."""
    if verdict.kind == COMPUTE:
        return None
    usual = matrix.of_pairs(rates)
    place = where(verdict)
    if verdict.kind == EVERYTHING:
        found = f"every pair is slow: {usual}, far below what the interfaces have negotiated"
    else:
        shown = _range([results[pair].bytes_per_s or 0.0 for pair in verdict.pairs])
        found = (
            f"{_WORDS[verdict.kind].format(place=place)} {shown}, usual is {usual}{_extra(verdict, results)}"
        )
    nodes = verdict.nodes if verdict.kind != UNCLEAR else tuple(sorted(verdict.nodes))
    return "bandwidth", nodes, place, found, _fix(verdict), verdict.conclusive


_WORDS = {
    TRANSMIT: "{place}: sends to every other with",
    RECEIVE: "{place}: receives from every other with",
    NODE: "{place}: sends and receives with",
    LINK: "{place}: the link carries, both ways,",
    DIRECTION: "{place}: this direction carries",
    GROUP: "{place}: the way between these groups carries, both ways,",
    f"{GROUP} {TRANSMIT}": "{place}: the way from the first group to the second carries",
    UNCLEAR: "{place}: several explanations are equally likely; pairs carry",
}


def _range(rates: Sequence[float]) -> str:
    low, high = min(rates), max(rates)
    return rate_text(low) if low == high else f"{rate_text(low)} to {rate_text(high)}"


def _extra(verdict: Verdict, results: Results) -> str:
    """What the pairs said besides, and how many segments were sent again: loss, not a shaper."""
    errors = sorted({results[pair].error for pair in verdict.pairs if results[pair].error})
    again = sum(results[pair].retransmits or 0 for pair in verdict.pairs)
    said = f" ({'; '.join(errors)})" if errors else ""
    return f"{said}; {again} segments were sent again" if again else said


def _fix(verdict: Verdict) -> str:
    first = verdict.nodes[0]
    card = "`tc qdisc show`, `ethtool IF` (speed, duplex) and `ip -s link` (errors)"
    if verdict.kind == UNCLEAR:
        tests = ", then ".join(f"--exclude {node}" for node in verdict.nodes[:3])
        return f"Next test: `python -m runtime smoke --quick` with {tests}; or with one more node."
    if verdict.kind in (LINK, DIRECTION):
        look = f"`ip route get {verdict.nodes[1]}` and `tc qdisc show` on {first}"
        return f"See {look}, and the cable and ports between the two."
    if verdict.kind.startswith(GROUP):
        return "See the uplink between their switches: errors, speed and members of its trunk."
    if verdict.kind == EVERYTHING:
        return f"See {card} on any node, and the switch's ports."
    return f"See {card} on {first}; then its cable and its switch port."


def coverage(results: Results, hosts: Sequence[str]) -> str:
    """How much of the matrix was measured."""
    return f"{len(results)} of {len(hosts) * (len(hosts) - 1)} directions measured"


def evidence(results: Results, hosts: Sequence[str], surveys: Mapping[str, Survey]) -> dict[str, str]:
    """What the checks saw where they found nothing, by their identity."""
    if not results:
        return {}
    covered = coverage(results, hosts)
    usual = matrix.of_pairs(rates_of(results))
    slowest = max((r.rtt_p99_s or 0.0) for r in results.values())
    sizes = [result.path_mtu for result in results.values() if result.path_mtu]
    return {
        "sockets.path-mtu": f"packets of {min(sizes, default=0)} bytes pass unbroken",
        "sockets.contents": f"every byte right; {covered}",
        "sockets.latency": f"p50 {_ms(_usual_latency(results))}, worst p99 {_ms(slowest)}; {covered}",
        "sockets.bandwidth": f"{usual}; {covered}; {_ceiling_words(surveys)}",
    }


def _ceiling_words(surveys: Mapping[str, Survey]) -> str:
    limit = ceiling(surveys)
    return f"hardware allows {rate_text(limit)}" if limit else "the interfaces do not say what they can"
