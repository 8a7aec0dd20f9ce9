"""Whose memory lies on a disk, and whose use of swap is what Linux does everywhere."""

from __future__ import annotations

from dataclasses import replace

import pytest

from runtime.probes.host import Survey
from runtime.smoke.host.registry import evidence, judge, not_applicable, probes
from runtime.smoke.host.swap import Swap, parse
from tests.unit.runtime.smoke.host.cluster import NAMES, healthy, nodes

MEMORY = healthy("te1").memory_bytes
HEADING = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"


def using(*shares: float) -> dict[str, Survey]:
    """Nodes with that share of their memory in swap; all have as much swap as memory."""
    return {
        host: replace(healthy(host), probed={"host.swap": Swap(total=MEMORY, used=int(share * MEMORY))})
        for host, share in zip(NAMES, shares, strict=False)
    }


@pytest.mark.parametrize(
    ("swaps", "total", "used"),
    [
        # Debian 12 with a partition and a file whose name has a blank, as the kernel writes it.
        (
            HEADING
            + "/dev/nvme0n1p3                          partition\t8388604\t\t524288\t\t-2\n"
            + "/var/swap\\040file                       file\t\t1048572\t\t0\t\t-3\n",
            9437176 << 10,
            512 << 20,
        ),
        # Fedora's, which is memory itself.
        (HEADING + "/dev/zram0                              partition\t8388604\t\t6291456\t\t100\n", 0, 0),
        (HEADING, 0, 0),
        ("", 0, 0),
    ],
)
def test_what_the_kernel_says_of_swap_is_read(swaps: str, total: int, used: int) -> None:
    assert parse(swaps) == Swap(total=total, used=used)


def test_a_container_answers_for_its_own_pages_and_not_for_those_of_its_host() -> None:
    swaps = HEADING + "/dev/sda2                               partition\t8388604\t\t6291456\t\t-2\n"

    assert parse(swaps, "4096\n") == Swap(total=8388604 << 10, used=4096)


@pytest.mark.parametrize(
    ("shares", "words"),
    [
        (
            (0.01, 0.12, 0.02, 0.01),
            "7.7 GiB of its memory lie on disks, 12% of what it has; the others have 1%",
        ),
        ((0.06, 0.13, 0.06), "13% of what it has; the others have 6%"),
        ((0.0, 0.3), "30% of what it has; the others have 0%"),
        ((0.2, 0.26, 0.2), "26% of what it has"),
    ],
)
def test_the_node_that_is_short_of_memory_is_named_with_bytes(shares: tuple[float, ...], words: str) -> None:
    (said,) = judge(nodes(using(*shares)))

    assert (said.check, said.hosts) == ("swap", ("te2",))
    assert words in said.found
    assert "swapoff -a && swapon -a" in said.fix


@pytest.mark.parametrize("count", [1, 2, 4])
def test_where_all_nodes_are_short_of_memory_all_are_named(count: int) -> None:
    said = judge(nodes(using(*[0.3] * count)))

    assert [one.hosts for one in said] == [(host,) for host in list(NAMES)[:count]]
    assert all(one.found.endswith("30% of what it has") for one in said)


def test_a_node_that_says_it_has_no_memory_ends_nothing() -> None:
    surveys = {host: replace(seen, memory_bytes=0) for host, seen in using(0.3, 0.0).items()}

    assert [one.hosts for one in judge(nodes(surveys)) if one.check == "swap"] == [("te1",)]


@pytest.mark.parametrize(
    "shares", [(0.0, 0.09, 0.0), (0.08, 0.15, 0.08), (0.2, 0.2, 0.2, 0.2), (0.2,), (0.0,)]
)
def test_idle_pages_and_what_all_have_alike_accuse_nobody(shares: tuple[float, ...]) -> None:
    asked = nodes(using(*shares))

    assert judge(asked) == ()
    assert evidence(asked)["host.swap"].endswith(" in use at most")
    assert "host.swap" not in not_applicable(asked)


def test_without_swap_on_any_disk_it_is_skipped() -> None:
    surveys = {host: replace(healthy(host), probed={"host.swap": Swap(total=0, used=0)}) for host in NAMES}

    assert judge(nodes(surveys)) == ()
    assert not_applicable(nodes(surveys))["host.swap"] == "no node has swap on a disk"
    assert "host.swap" not in not_applicable(nodes())


def test_this_machine_says_what_it_has() -> None:
    swap = probes()["host.swap"]()

    assert 0 <= swap.used <= swap.total
