"""When a disk is slow, or takes nothing."""

from __future__ import annotations

import pytest

from runtime.smoke.host.registry import Written, judge
from tests.unit.runtime.smoke.host.cluster import nodes


def wrote(*rates: float) -> dict[str, Written]:
    return {f"te{number}": Written(rate=rate, problem="") for number, rate in enumerate(rates, start=1)}


def test_a_disk_is_slow_where_it_takes_a_quarter_of_what_the_others_take() -> None:
    (said,) = judge(nodes(disks=wrote(4e8, 5e6, 9e8, 5e8)))

    assert (said.check, said.hosts) == ("disk write", ("te2",))
    assert said.found == "te2 (rank 1): its disk writes 5 MB/s, the others' 500 MB/s"


@pytest.mark.parametrize("rates", [(4e8, 1.5e8, 5e8), (1e6, 9e8), (1e6,), ()])
def test_disks_that_differ_as_disks_do_or_have_too_few_to_compare_with_are_left_alone(
    rates: tuple[float, ...],
) -> None:
    assert judge(nodes(disks=wrote(*rates))) == ()


def test_a_disk_that_takes_no_file_is_named_with_the_reason() -> None:
    disks = {**wrote(4e8), "te2": Written(rate=0.0, problem="/data: Read-only file system")}

    (said,) = judge(nodes(disks=disks))

    assert said.found == "te2 (rank 1): cannot write to /data: Read-only file system"
