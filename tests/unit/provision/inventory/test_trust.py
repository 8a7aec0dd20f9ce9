"""A key that is given up stays known as one that opens nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from provision.errors import BadInput
from provision.inventory.trust import forget, give_up_key, nodes_in_ledger


def test_a_key_that_is_given_up_is_retired_and_a_second_time_is_nothing(tmp_path: Path) -> None:
    for key in ("first", "second"):
        (tmp_path / "cluster_key").write_text("secret")
        (tmp_path / "cluster_key.pub").write_text(f"ssh-ed25519 {key} clusterwright lab\n")
        give_up_key(tmp_path)
        give_up_key(tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == ["retired_keys.pub"]
    assert (tmp_path / "retired_keys.pub").read_text() == (
        "ssh-ed25519 first clusterwright lab\nssh-ed25519 second clusterwright lab\n"
    )


def test_a_node_is_forgotten_and_the_others_are_not(tmp_path: Path) -> None:
    (tmp_path / "host_keys.yml").write_text("te1:\n- ssh-ed25519 one\nte2:\n- ssh-ed25519 two\n")

    forget(tmp_path, "te1")
    forget(tmp_path, "te9")

    assert nodes_in_ledger(tmp_path) == ["te2"]
    assert nodes_in_ledger(tmp_path / "absent") == []


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"te1: [", "while parsing a flow node"),
        (b"- te1\n", "it holds list where nodes belong"),
        (b"te1: [caf\xe9]\n", "special characters are not allowed"),
        (b"te1: 2024-13-45\n", "month must be in 1..12"),
    ],
)
def test_a_ledger_that_is_damaged_is_named_and_stays(tmp_path: Path, content: bytes, found: str) -> None:
    (tmp_path / "host_keys.yml").write_bytes(content)

    for ask in (nodes_in_ledger, lambda folder: forget(folder, "te1")):
        with pytest.raises(BadInput) as refused:
            ask(tmp_path)
        assert refused.value.asked == f"read {tmp_path / 'host_keys.yml'}"
        assert found in refused.value.found
        assert "Put a copy of it back" in refused.value.fix
    assert (tmp_path / "host_keys.yml").read_bytes() == content
