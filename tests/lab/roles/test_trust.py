"""Every node reaches every node by name and by address, with keys only, and refuses a swapped host key."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

SSH = "ssh -o BatchMode=yes -o StrictHostKeyChecking=yes -o ConnectTimeout=5"
# A connection that is already open outlives its host key, so that the open ones are ended as well.
SWAP_HOST_KEYS = (
    "rm /etc/ssh/ssh_host_*_key* && ssh-keygen -A && systemctl restart ssh && "
    "systemd-run --quiet --on-active=0.5 pkill -f '^sshd: root@notty'"
)


@pytest.fixture(scope="module")
def trusting(blank_lab: Any, play: Any) -> Any:
    play("node_access", "host_names", "ssh_trust")
    return blank_lab


def test_each_node_reaches_each_node_by_name_and_by_address(trusting: Any) -> None:
    targets = [*trusting.nodes, *map(trusting.address, trusting.nodes)]
    ask = "; ".join(f"{SSH} {target} hostname" for target in targets)

    for node in trusting.nodes:
        assert trusting.out(node, ask).split() == [*trusting.nodes, *trusting.nodes], node


def test_a_password_is_not_even_asked_for(trusting: Any) -> None:
    words = ["ssh", "-o", "PubkeyAuthentication=no", "-o", "StrictHostKeyChecking=yes"]
    known_hosts = f"UserKnownHostsFile={trusting.lab.known_hosts}"

    refused = subprocess.run(
        [*words, "-o", known_hosts, f"root@{trusting.address('te2')}", "true"],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
        stdin=subprocess.DEVNULL,
    )

    assert refused.returncode == 255
    assert "Permission denied (publickey)" in refused.stderr


def test_the_private_key_is_readable_by_its_user_alone(trusting: Any) -> None:
    assert trusting.out("te3", "stat -c '%a %U' /root/.ssh/clusterwright_ed25519") == "600 root"
    assert (trusting.lab.folder / "secrets" / "cluster_key").stat().st_mode & 0o777 == 0o600


def test_names_and_trust_hold_after_a_reboot(trusting: Any, play: Any) -> None:
    trusting.reboot("te4")

    assert trusting.out("te4", "hostname; getent ahosts te4 | head -1 | cut -d' ' -f1").split() == [
        "te4",
        trusting.address("te4"),
    ]
    assert trusting.out("te4", f"{SSH} te1 hostname") == "te1"
    assert trusting.out("te1", f"{SSH} te4 hostname") == "te4"
    assert not any(play("host_names", "ssh_trust").changed().values())


def test_a_swapped_host_key_is_refused_by_nodes_and_stops_the_run(trusting: Any, play: Any) -> None:
    trusting.run("te2", SWAP_HOST_KEYS)
    time.sleep(2)
    from_te1 = trusting.run("te1", f"{SSH} te2 hostname", check=False)
    stopped = play("node_access", "host_names", "ssh_trust", ok=False)

    assert from_te1.returncode == 255
    assert "HOST IDENTIFICATION HAS CHANGED" in from_te1.stderr
    assert stopped.returncode != 0
    assert "te2: its host key is not the known one" in stopped.output
    assert "Observe names" not in stopped.output

    accept(trusting, "te2")
    stopped = play("node_access", "host_names", "ssh_trust", ok=False)
    assert stopped.returncode != 0
    assert "te2: its ssh-ed25519 host key is" in stopped.output
    assert not any(stopped.changed().values())

    play("ssh_trust", flags=("-e", '{"ssh_trust_replaced_nodes": ["te2"]}'))
    assert trusting.out("te1", f"{SSH} te2 hostname") == "te2"


def accept(lab: Any, node: str) -> None:
    """Corrects the node's line in the controller's known_hosts, as a person does who replaced the machine."""
    address = lab.address(node)
    scanned = subprocess.run(
        ["ssh-keyscan", "-t", "ed25519", address], capture_output=True, text=True, timeout=20, check=True
    )
    known_hosts: Path = lab.lab.known_hosts
    kept = [line for line in known_hosts.read_text().splitlines() if not line.startswith(address)]
    known_hosts.write_text("\n".join([*kept, *scanned.stdout.splitlines()]) + "\n")
