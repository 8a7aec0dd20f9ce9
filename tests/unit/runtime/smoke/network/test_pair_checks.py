"""Measured pairs in words: each fault once, with figures, a place and a fix."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest

from runtime.errors import BadInput
from runtime.probes.finding import Finding
from runtime.probes.stream import PairResult
from runtime.smoke.checks import CATALOGUE
from runtime.smoke.network.pair_checks import (
    below_floor,
    ceiling,
    evidence,
    judge_pairs,
    reachable_floor,
    suspicious,
)
from runtime.smoke.network.rates import best_of
from tests.unit.runtime.smoke.host.cluster import NAMES, cluster

RANKS = {host: (number,) for number, host in enumerate(NAMES)}
COMPUTE = dict.fromkeys(NAMES, 2e8)


def healthy(source: str, target: str) -> PairResult:
    return PairResult(
        source=source,
        target=target,
        connected=True,
        rtt_p50_s=1e-4,
        rtt_p99_s=3e-4,
        bytes_per_s=8e8,
        retransmits=0,
        path_mtu=1500,
    )


def matrix(pairs: dict[str, dict[str, Any]]) -> dict[tuple[str, str], PairResult]:
    """Four healthy nodes; `te1>te2` or `te1>*` changed."""
    results = {pair: healthy(*pair) for pair in permutations(NAMES, 2)}
    for text, changes in pairs.items():
        source, target = text.split(">")
        for pair in results:
            if pair[0] == source and target in ("*", pair[1]):
                results[pair] = replace(results[pair], **changes)
    return results


def judged(pairs: dict[str, dict[str, Any]], **surveys: Any) -> tuple[Finding, ...]:
    return judge_pairs(matrix(pairs), surveys=cluster(**surveys), compute=COMPUTE, ranks=RANKS)


def test_a_healthy_matrix_says_nothing_and_shows_its_evidence() -> None:
    assert judged({}) == ()
    assert suspicious(matrix({}), COMPUTE) == ()
    seen = evidence(matrix({}), list(NAMES), cluster())
    assert set(seen) <= set(CATALOGUE)
    assert "12 of 12 directions measured" in seen["sockets.bandwidth"]


@pytest.mark.parametrize(
    ("pairs", "check", "where", "hosts", "words"),
    [
        (
            {"te3>*": {"bytes_per_s": 2.4e7}},
            "bandwidth",
            "te3 transmit",
            ("te3",),
            "24 MB/s, usual is 800 MB/s",
        ),
        (
            {"te1>te2": {"bytes_per_s": 2.4e7}},
            "bandwidth",
            "te1 -> te2",
            ("te1", "te2"),
            "this direction carries",
        ),
        (
            {"te1>te2": {"bytes_per_s": 1e7, "retransmits": 90}},
            "bandwidth",
            "te1 -> te2",
            ("te1", "te2"),
            "90 segments were sent again",
        ),
        (
            {
                "te1>te2": {
                    "bytes_per_s": 0.0,
                    "error": "small messages pass, but nothing of a stream arrives",
                }
            },
            "bandwidth",
            "te1 -> te2",
            ("te1", "te2"),
            "small messages pass, but nothing",
        ),
        (
            {"te4>te2": {"rtt_p50_s": 0.02}},
            "latency",
            "te4 -> te2",
            ("te4", "te2"),
            "20.00 ms, usually 0.10 ms",
        ),
        ({"te4>te2": {"path_mtu": 1400}}, "path mtu", "te4 -> te2", ("te4", "te2"), "1500 bytes, which both"),
        (
            {
                "te4>te2": {
                    "bytes_per_s": None,
                    "error": "other bytes arrived than were sent, after 5 right ones",
                }
            },
            "stream contents",
            "te4 -> te2",
            ("te4", "te2"),
            "after 5 right ones",
        ),
    ],
)
def test_a_fault_is_one_finding(
    pairs: dict[str, dict[str, Any]], check: str, where: str, hosts: tuple[str, ...], words: str
) -> None:
    (finding,) = judged(pairs)

    assert (finding.check, finding.where, finding.hosts) == (check, where, hosts)
    assert finding.ranks == tuple(RANKS[host][0] for host in hosts)
    assert words in finding.found
    assert finding.fix
    assert finding.conclusive
    assert suspicious(matrix(pairs), COMPUTE) or check == "path mtu"


def test_unlike_ends_need_only_the_smaller_packet() -> None:
    assert judged({"te3>*": {"path_mtu": 1500}}, mtu=9000) == ()


def test_where_udp_is_filtered_the_path_mtu_is_unknown_and_not_wrong() -> None:
    assert judged({"te1>*": {"path_mtu": 0}}) == ()


def test_a_slow_processor_is_not_reported_as_a_network() -> None:
    slow = {"te3>*": {"bytes_per_s": 1e8}}

    assert judge_pairs(matrix(slow), surveys=cluster(), compute={**COMPUTE, "te3": 2e7}, ranks=RANKS) == ()


def test_a_stream_that_kept_a_processor_busy_says_nothing_against_the_network() -> None:
    slow = {"bytes_per_s": 2e8}

    assert judged({"te1>te2": slow | {"busy_share": 0.97}}) == ()
    assert suspicious(matrix({"te1>te2": slow | {"busy_share": 0.97}}), COMPUTE) == ()
    (finding,) = judged({"te1>te2": slow | {"busy_share": 0.3}})
    assert finding.where == "te1 -> te2"


def test_a_busy_pair_that_is_as_slow_as_the_others_of_its_sender_does_not_clear_it() -> None:
    pairs = {"te1>*": {"bytes_per_s": 2e8, "busy_share": 0.3}}
    one_busy = matrix(pairs) | {("te1", "te2"): replace(matrix(pairs)["te1", "te2"], busy_share=0.95)}

    found = judge_pairs(one_busy, surveys=cluster(), compute=COMPUTE, ranks=RANKS)

    assert [finding.where for finding in found] == ["te1 transmit"]


def test_a_busy_pair_that_is_much_faster_clears_its_ends() -> None:
    pairs = {"te1>*": {"bytes_per_s": 1e8, "busy_share": 0.3}}
    faster = replace(matrix(pairs)["te1", "te2"], bytes_per_s=5e8, busy_share=0.95)

    found = judge_pairs(
        matrix(pairs) | {("te1", "te2"): faster}, surveys=cluster(), compute=COMPUTE, ranks=RANKS
    )

    assert sorted(finding.where for finding in found) == ["te1 -> te3", "te1 -> te4"]


def test_processors_that_hold_every_pair_back_do_not_make_a_slow_network() -> None:
    fast = {host: replace(seen, speed_bits=10**10) for host, seen in cluster().items()}
    slow = {pair: replace(result, bytes_per_s=3e8) for pair, result in matrix({}).items()}
    held_back = {pair: replace(result, busy_share=0.95) for pair, result in slow.items()}

    (finding,) = judge_pairs(slow, surveys=fast, compute=COMPUTE, ranks=RANKS)

    assert finding.found.startswith("every pair is slow")
    assert judge_pairs(held_back, surveys=fast, compute=COMPUTE, ranks=RANKS) == ()


def test_a_way_that_loses_packets_is_one_fault_however_its_rates_scatter() -> None:
    """Rates as seen with a fifth of the packets to te2 lost: data one way, acknowledgements the other."""
    lost = {"resent_share": 0.3, "retransmits": 300}
    pairs = {
        "te1>te2": {"bytes_per_s": 8.8e6, **lost},
        "te3>te2": {"bytes_per_s": 4.6e5, **lost},
        "te4>te2": {"bytes_per_s": 6.4e5, **lost},
        "te2>te1": {"bytes_per_s": 2.1e8, "resent_share": 0.001, "retransmits": 2},
        "te2>te4": {"bytes_per_s": 9.4e7, "resent_share": 0.001, "retransmits": 2},
    }

    (finding,) = judged(pairs)

    assert (finding.hosts, finding.where) == (("te2",), "te2 receive")
    assert "460 kB/s to 8.8 MB/s" in finding.found
    assert suspicious(matrix(pairs), COMPUTE) == ()


def test_a_node_behind_a_hole_for_large_packets_is_named_once() -> None:
    pairs = {"te2>*": {"path_mtu": 1280}} | {
        f"{name}>te2": {"path_mtu": 1400} for name in ("te1", "te3", "te4")
    }

    (finding,) = judged(pairs)

    assert (finding.check, finding.hosts, finding.where) == ("path mtu", ("te2",), "te2")
    assert "do not arrive on 6 ways to and from it; 1280 bytes do" in finding.found
    assert len(judged({"te1>te2": {"path_mtu": 1280}, "te3>te4": {"path_mtu": 1280}})) == 2


def test_a_way_on_which_large_packets_vanish_is_not_measured_again() -> None:
    hole = {
        "path_mtu": 1280,
        "bytes_per_s": 0.0,
        "error": "small messages pass, but nothing of a stream arrives",
    }

    assert suspicious(matrix({"te2>te1": hole}), COMPUTE) == ()
    assert suspicious(matrix({"te2>te1": hole | {"path_mtu": 1500}}), COMPUTE) == (("te2", "te1"),)
    assert suspicious(matrix({"te2>te1": {"path_mtu": 1280, "rtt_p50_s": 0.5}}), COMPUTE) == (("te2", "te1"),)


def test_with_two_nodes_the_pair_is_named() -> None:
    two = {
        pair: result
        for pair, result in matrix({"te1>te2": {"bytes_per_s": 1e7}}).items()
        if {*pair} <= {"te1", "te2"}
    }

    (finding,) = judge_pairs(two, surveys=cluster(), compute=COMPUTE, ranks=RANKS)

    assert finding.where == "te1 -> te2"


def test_an_expectation_comes_only_from_interfaces_that_say_their_speed() -> None:
    fast = {host: replace(seen, speed_bits=10**10) for host, seen in cluster().items()}

    assert ceiling(cluster()) is None
    assert ceiling({**fast, "te1": cluster()["te1"]}) is None
    assert ceiling(fast) == 1e9
    slow = {pair: replace(result, bytes_per_s=1e8) for pair, result in matrix({}).items()}
    (finding,) = judge_pairs(slow, surveys=fast, compute=COMPUTE, ranks=RANKS)
    assert (finding.where, finding.hosts) == ("every pair", tuple(NAMES))


def test_the_best_of_two_measurements_counts_each_for_itself() -> None:
    slow = replace(healthy("te1", "te2"), bytes_per_s=1e7, rtt_p50_s=1e-5)
    late = replace(healthy("te1", "te2"), rtt_p50_s=1.0)
    broken = PairResult(source="te1", target="te2", connected=False, error="no answer in time")

    assert best_of(slow, late) == replace(late, rtt_p50_s=1e-5, rtt_p99_s=slow.rtt_p99_s)
    assert best_of(broken, slow) == slow
    assert best_of(slow, broken) == slow


def test_a_demand_names_the_pairs_that_do_not_meet_it() -> None:
    results = matrix({"te1>te2": {"bytes_per_s": 6e8}})

    (said,) = below_floor(results, 7e8, RANKS)

    assert (said.where, said.conclusive) == ("te1 -> te2", True)
    assert said.found == "te1 -> te2 carries 600 MB/s, less than the 700 MB/s that --least-bandwidth asks for"
    assert below_floor(results, 6e8, RANKS) == ()


def test_a_demand_that_a_processor_kept_from_being_met_is_not_decided() -> None:
    busy = {"bytes_per_s": 6e8, "busy_share": 0.9}

    (said,) = below_floor(matrix({"te1>te2": busy}), 7e8, RANKS)
    (all_said,) = below_floor(matrix({f"{name}>*": busy for name in NAMES}), 7e8, RANKS)

    assert (said.conclusive, all_said.conclusive) == (False, False)
    assert "processor was the limit" in said.fix


def test_where_no_pair_meets_a_demand_it_is_said_once() -> None:
    (said,) = below_floor(matrix({}), 9e8, RANKS)

    assert said.found.startswith("every pair carries 800 MB/s, less than the 900 MB/s")
    assert said.hosts == tuple(NAMES)


def test_a_demand_that_the_interface_cannot_meet_is_refused() -> None:
    with pytest.raises(BadInput, match=r"eth0 of te3 has negotiated 1 Gbit/s, which is 125 MB/s"):
        reachable_floor(126e6, cluster(speed_bits=10**9))

    reachable_floor(125e6, cluster(speed_bits=10**9))
