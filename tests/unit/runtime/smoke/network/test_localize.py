"""From matrices to verdicts: data cases, and simulated clusters with noise."""

from __future__ import annotations

import random
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import yaml

from runtime.smoke.network.localize import to_confirm, verdicts, where
from runtime.smoke.network.matrix import of_pairs, rate_text, slow_nodes, slow_pairs
from tests.bench.bench_localize import SINGLE, Score, trial
from tests.bench.simulated_cluster import Cluster, Fault, localized, names, two_pass

CASES = Path(__file__).parents[4] / "cases" / "smoke" / "matrices.yml"


def rates_of(case: dict[str, Any]) -> dict[tuple[str, str], float]:
    nodes = case.get("nodes", "abcd")
    healthy = {pair: 1e9 * (1 + 0.01 * (index % 5)) for index, pair in enumerate(permutations(nodes, 2))}
    rates = dict(healthy)
    for text, share in case["slow"].items():
        source, target = text.split(">")
        for pair in rates:
            if source in ("*", pair[0]) and target in ("*", pair[1]):
                rates[pair] = min(rates[pair], share * healthy[pair])
    for text in case.get("missing", ()):
        del rates[tuple(text.split(">"))]
    return rates


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=case["name"]) for case in yaml.safe_load(CASES.read_text())]
)
def test_a_matrix_gives_its_verdicts(case: dict[str, Any]) -> None:
    compute = dict.fromkeys(case.get("nodes", "abcd"), 100000000.0)
    compute |= {node: 1e8 * share for node, share in case.get("compute", {}).items()}
    ceiling = 1e9 * case["ceiling"] if "ceiling" in case else None

    excused = [tuple(text.split(">")) for text in case.get("excused", ())]
    found = verdicts(rates_of(case), compute=compute, ceiling=ceiling, excused=excused)

    assert sorted(where(verdict) for verdict in found) == sorted(case["verdicts"])


def test_nothing_measured_accuses_nobody() -> None:
    assert verdicts({}, compute={}) == ()
    assert (slow_pairs({}), slow_nodes({})) == (frozenset(), frozenset())


def test_peers_that_scatter_widen_what_is_normal_and_never_excuse_everything() -> None:
    source = random.Random(1)
    scattered = {pair: 1e9 * source.uniform(0.6, 1.4) for pair in permutations("abcdef", 2)}
    scattered["a", "b"] = 0.2e9

    assert of_pairs(scattered).least < 0.6e9
    assert slow_pairs(scattered) == {("a", "b")}


def test_what_is_measured_again_before_a_node_is_blamed_is_bounded() -> None:
    nodes = names(64)
    rates = {pair: 1e8 if pair[0] == nodes[0] else 1e9 for pair in permutations(nodes, 2)}

    again = to_confirm(verdicts(rates, compute={}), len(nodes))

    assert 2 <= len(again) <= 8
    assert {source for source, _ in again} == {nodes[0]}


@pytest.mark.parametrize("size", [4, 8, 32])
@pytest.mark.parametrize("kind", SINGLE)
def test_single_faults_are_named_in_noise_and_hardly_anyone_is_blamed_for_nothing(
    kind: str, size: int
) -> None:
    score, source = Score(), random.Random(f"{kind} {size}")

    for _ in range(40 if size < 32 else 8):
        trial(score, (kind,), size, source)

    assert score.named >= 0.95 * score.faults
    assert score.falsely_blamed <= 1


@pytest.mark.parametrize("size", [4, 16, 64, 256])
def test_healthy_clusters_of_any_size_pass(size: int) -> None:
    source = random.Random(size)

    found = [
        localized(Cluster(nodes=names(size), faults=(), source=source)) for _ in range(max(1, 64 // size))
    ]

    assert not any(found)


def test_the_pairwise_method_of_others_clears_both_ends_of_a_bad_link() -> None:
    """So the comparison in docs/measurements.md compares with what they do, not with a straw man."""
    source, nodes = random.Random(3), names(16)
    link = Fault(kind="link", nodes=nodes[:2], share=0.1)
    node = Fault(kind="node", nodes=nodes[5:6], share=0.1)

    blamed = [two_pass(Cluster(nodes=nodes, faults=(link, node), source=source)) for _ in range(20)]

    assert all(nodes[5] in found for found in blamed)
    assert sum(nodes[0] in found or nodes[1] in found for found in blamed) <= 2


@pytest.mark.parametrize(
    ("rate", "text"), [(1.734e9, "1.73 GB/s"), (23.9e6, "23.9 MB/s"), (4e3, "4 kB/s"), (0, "0 B/s")]
)
def test_rates_in_words(rate: float, text: str) -> None:
    assert rate_text(rate) == text
