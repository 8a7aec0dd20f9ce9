"""The smallest change that fits: it fits, no smaller one does, and it is said as keys to write."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import BadInput
from runtime.train.estimate.report import RESERVE, advise, fits, lines, parse_bytes, readable, report
from runtime.train.estimate.states import Settings, estimate
from tests.unit.runtime.train.estimate.models import MODEL, settings

SETTINGS = st.builds(
    settings,
    ranks=st.integers(1, 8),
    stage=st.integers(0, 3),
    compute_bytes=st.sampled_from([2, 4]),
    micro_batch=st.integers(1, 6),
    accumulation=st.integers(1, 3),
    recompute=st.booleans(),
)


def needed(wanted: Settings) -> int:
    """Bytes of a device that just holds it."""
    return int(estimate(MODEL, wanted).device.total / (1 - RESERVE)) + 1


@given(now=SETTINGS, device_bytes=st.integers(200_000, 20_000_000))
def test_advice_fits_and_keeps_the_global_batch(now: Settings, device_bytes: int) -> None:
    found = advise(MODEL, now, device_bytes)

    if found is None:
        everything = settings(
            ranks=now.ranks, stage=3, recompute=True, offload_optimizer="cpu", reduce_bytes=2
        )
        assert not fits(MODEL, everything, device_bytes)
    else:
        assert fits(MODEL, found.settings, device_bytes)
        assert (not found.changes) == fits(MODEL, now, device_bytes)
        assert found.settings.micro_batch * found.settings.accumulation == now.micro_batch * now.accumulation


@pytest.mark.parametrize(
    ("now", "then", "keys"),
    [
        (settings(compute_bytes=4, reduce_bytes=4), settings(), {"bf16": {"enabled": True}}),
        (settings(ranks=4), settings(ranks=4, stage=2), {"zero_optimization": {"stage": 1}}),
        (settings(ranks=4), settings(ranks=4, stage=3), {"zero_optimization": {"stage": 3}}),
        (
            settings(ranks=4, stage=3),
            settings(ranks=4, stage=3, offload_optimizer="cpu"),
            {"zero_optimization": {"offload_optimizer": {"device": "cpu"}}},
        ),
        (
            settings(ranks=4, stage=3, micro_batch=6, recompute=True, offload_optimizer="cpu"),
            settings(ranks=4, stage=3, micro_batch=3, recompute=True, offload_optimizer="cpu"),
            {"train_micro_batch_size_per_gpu": 3, "gradient_accumulation_steps": 2},
        ),
    ],
)
def test_the_smallest_change_is_named(now: Settings, then: Settings, keys: dict[str, object]) -> None:
    found = advise(MODEL, now, needed(then))

    assert found is not None
    assert found.keys == keys


def test_what_cannot_fit_is_said() -> None:
    assert advise(MODEL, settings(), 1000) is None
    text = list(lines(report(MODEL, settings(), 1000, 1)))
    assert text[-1].startswith("no configuration makes it fit")
    assert text[-2].startswith("DOES NOT FIT")


@pytest.mark.parametrize(
    ("text", "size"), [("24GB", 24 * 10**9), ("22.5 GiB", 24159191040), ("80gb", 80 * 10**9), ("7", 7)]
)
def test_sizes_of_memory(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "GB", "24 bananas", "-1GB", "0GB", "1e3GB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="Write 24GB"):
        parse_bytes(text)


def test_sizes_are_readable() -> None:
    assert [readable(size) for size in (0, 1234567, 24e9)] == ["-", "1.23 MB", "24.00 GB"]
