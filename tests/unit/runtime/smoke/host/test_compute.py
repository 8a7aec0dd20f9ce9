"""When a processor is slow."""

from __future__ import annotations

from runtime.smoke.host.registry import judge
from tests.unit.runtime.smoke.host.cluster import nodes


def test_a_slow_processor_is_named_with_the_others_rate() -> None:
    (said,) = judge(nodes(compute={"te1": 2e8, "te2": 2.1e8, "te3": 3e7, "te4": 1.9e8}))

    assert (said.check, said.hosts) == ("compute", ("te3",))
    assert "hashes 30 MB/s, the others' 200 MB/s" in said.found
