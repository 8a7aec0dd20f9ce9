"""The line that lets the cluster's key in."""

from __future__ import annotations

import pytest

from provision.roles.ssh_trust.cluster_key import authorised_line

KEY = "ssh-ed25519 AAAA clusterwright lab"


@pytest.mark.parametrize(
    ("sources", "line"),
    [
        (["10.0.0.1", "10.0.0.2"], f'from="10.0.0.1,10.0.0.2",restrict,pty {KEY}'),
        (["10.0.0.1", "10.0.0.1", "fd00::1"], f'from="10.0.0.1,fd00::1",restrict,pty {KEY}'),
        (["*"], f'from="*",restrict,pty {KEY}'),
        ([], f"restrict,pty,port-forwarding {KEY}"),
    ],
)
def test_the_key_opens_from_the_cluster_and_forwards_nothing(sources: list[str], line: str) -> None:
    assert authorised_line(KEY, sources) == line


def test_no_key_is_no_line() -> None:
    assert authorised_line("", ["10.0.0.1"]) == ""
