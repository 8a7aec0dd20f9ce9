"""Every role: check, apply, check, apply gives changed, changed, unchanged, unchanged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
PLAYS = yaml.safe_load((ROOT / "playbooks" / "site.yml").read_text())
# A smoke test is an event: it makes nothing true of a node, and has tests of its own.
ROLES = [play["hosts"] for play in PLAYS if "hosts" in play and play["hosts"] != "smoke_test"]
LOOKS_ONLY = {"node_access", "nvidia_gpu"}
# Everything that a role could write, by name, size, mode and content; and the disk that it could format.
STATE = (
    "find /etc /usr /opt /root /data /var/lib/dpkg -xdev -path /root/.ansible -prune -o -type f "
    "-printf '%p %s %m ' -exec sha256sum {} + | sha256sum; "
    "head -c 1M /dev/vdb | sha256sum; cat /proc/sys/net/core/somaxconn"
)


@pytest.mark.parametrize("role", ROLES)
def test_a_role_changes_a_node_once(role: str, blank_lab: Any, play: Any) -> None:
    before = blank_lab.out("te1", STATE)
    foreseen = play(role, flags=("--check", "--diff"))
    after_check = blank_lab.out("te1", STATE)
    first = play(role)
    again = play(role, flags=("--check", "--diff"))
    second = play(role)

    assert after_check == before, "a run in check mode changed the node"
    if role not in LOOKS_ONLY:
        assert all(foreseen.changed().values()), foreseen.output
        assert all(first.changed().values()), first.output
    assert not any(again.changed().values()), again.output
    assert not any(second.changed().values()), second.output
