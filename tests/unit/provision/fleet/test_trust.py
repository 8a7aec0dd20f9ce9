"""A key that is given up stays known as one that opens nothing."""

from __future__ import annotations

from pathlib import Path

from provision.fleet.trust import forget, give_up_key, nodes_in_ledger


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
