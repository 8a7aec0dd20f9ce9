"""Every node reaches every node by name and by address, with keys only, and refuses a swapped host key."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import RecordRefusal
from tests.lab.conftest import JOB_USER, Finished, LabUnderTest, changed, playbook

SSH = "ssh -o BatchMode=yes -o StrictHostKeyChecking=yes -o ConnectTimeout=5"
# A connection that is already open outlives its host key, so that the open ones are ended as well.
SWAP_HOST_KEYS = (
    "rm /etc/ssh/ssh_host_*_key* && ssh-keygen -A && systemctl restart ssh && "
    "systemd-run --quiet --on-active=0.5 pkill -f '^sshd: root@notty'"
)


def test_each_node_reaches_each_node_by_name_and_by_address(converged_lab: LabUnderTest) -> None:
    targets = [*converged_lab.nodes, *map(converged_lab.address, converged_lab.nodes)]
    ask = "; ".join(f"{SSH} {target} hostname" for target in targets)

    for node in converged_lab.nodes:
        told = converged_lab.out(node, ask, user=JOB_USER).split()
        assert told == [*converged_lab.nodes, *converged_lab.nodes], node


def said_from_outside(lab: LabUnderTest, *words: str) -> str:
    """What ssh says where the lab's host, which is no node, is not let in at te2 with these words."""
    known_hosts = ("-o", f"UserKnownHostsFile={lab.lab.known_hosts}")
    refused = subprocess.run(
        ["ssh", *words, *known_hosts, f"root@{lab.address('te2')}", "true"],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert refused.returncode == 255
    return refused.stderr


def test_a_password_is_not_even_asked_for(converged_lab: LabUnderTest) -> None:
    words = ("-o", "PubkeyAuthentication=no", "-o", "StrictHostKeyChecking=yes")

    assert "Permission denied (publickey)" in said_from_outside(converged_lab, *words)


def test_the_private_key_is_readable_by_its_user_alone(converged_lab: LabUnderTest) -> None:
    assert converged_lab.out("te3", "stat -c '%a %U' ~trainer/.ssh/clusterwright_ed25519") == "600 trainer"
    assert (converged_lab.lab.folder / "secrets" / "cluster_key").stat().st_mode & 0o777 == 0o600


@pytest.mark.attack("network")
def test_a_stolen_cluster_key_opens_no_node_from_elsewhere(
    converged_lab: LabUnderTest, record_refusal: RecordRefusal
) -> None:
    """The lab's host is in the nodes' network, and no node."""
    stolen = converged_lab.lab.folder / "secrets" / "cluster_key"
    words = ("-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-i", str(stolen))

    said = said_from_outside(converged_lab, *words)
    record_refusal(said)
    assert "Permission denied (publickey)" in said
    assert converged_lab.out("te1", f"{SSH} te2 hostname", user=JOB_USER) == "te2"
    forward = f"{SSH} -o ExitOnForwardFailure=yes -R 0:127.0.0.1:22 te2 true"
    assert converged_lab.run("te1", forward, check=False, user=JOB_USER).returncode != 0
    assert "forwardagent no" in converged_lab.out("te1", "ssh -G te2", user=JOB_USER)


# In the gate test_job_user has a line of ours that goes among those of people.
@pytest.mark.long
def test_an_older_line_without_limits_goes_and_those_of_others_stay(
    mirror: None, spare_lab: LabUnderTest
) -> None:
    """As the version before this one left it, with a person's lines around it."""
    spare_lab.reset()
    as_root = ("-e", "cluster_user=root")
    converge(spare_lab, *as_root)
    path = "/root/.ssh/authorized_keys"
    key = (spare_lab.lab.folder / "secrets" / "cluster_key.pub").read_text().strip()
    own = spare_lab.out("te2", f"head -n 1 {path}")
    spare_lab.run("te2", f"printf '%s\\n%s\\r\\n%s\\n' '{own}' 'ssh-rsa AAAA a person' '{key}' > {path}")

    first = converge(spare_lab, *as_root)
    again = converge(spare_lab, *as_root)

    addresses = ",".join(map(spare_lab.address, spare_lab.nodes))
    assert changed(first)["te2"] == 1
    assert not any(changed(again).values())
    ours = f'from="{addresses}",restrict,pty {key}'
    shown = spare_lab.out("te2", f"cat --show-all {path}").splitlines()
    assert shown == [f"{own}$", "ssh-rsa AAAA a person^M$", f"{ours}$"]


def test_pdsh_reaches_all_nodes(converged_lab: LabUnderTest) -> None:
    answers = converged_lab.out("te1", "pdsh -S -w te[1-4] hostname", user=JOB_USER)

    assert sorted(answers.splitlines()) == [f"{node}: {node}" for node in converged_lab.nodes]


@pytest.mark.attack("network")
def test_a_swapped_host_key_is_refused_by_nodes_and_stops_the_run(
    mirror: None, spare_lab: LabUnderTest, record_refusal: RecordRefusal
) -> None:
    spare_lab.reset()
    converge(spare_lab)
    spare_lab.run("te2", SWAP_HOST_KEYS)
    time.sleep(2)
    from_te1 = spare_lab.run("te1", f"{SSH} te2 hostname", check=False, user=JOB_USER)
    by_ssh = converge(spare_lab, check=False)
    accept(spare_lab, "te2")
    by_ledger = converge(spare_lab, check=False)
    converge(spare_lab, "-e", '{"ssh_trust_replaced_nodes": ["te2"]}')

    record_refusal(from_te1.stderr)
    assert from_te1.returncode == 255
    assert "HOST IDENTIFICATION HAS CHANGED" in from_te1.stderr
    assert "te2: its host key is not the known one" in by_ssh.stdout + by_ssh.stderr
    assert "Observe names" not in by_ssh.stdout
    assert "te2: its ssh-ed25519 host key is" in by_ledger.stdout + by_ledger.stderr
    assert not any(changed(by_ledger).values())
    assert spare_lab.out("te1", f"{SSH} te2 hostname", user=JOB_USER) == "te2"


def converge(lab: LabUnderTest, *flags: str, check: bool = True) -> Finished:
    return playbook(lab, "--tags", "node_access,host_names,ssh_trust", *flags, check=check)


def accept(lab: LabUnderTest, node: str) -> None:
    """Corrects the node's line in the controller's known_hosts, as a person does who replaced the machine."""
    address = lab.address(node)
    scanned = subprocess.run(
        ["ssh-keyscan", "-t", "ed25519", address], capture_output=True, text=True, timeout=20, check=True
    )
    known_hosts: Path = lab.lab.known_hosts
    kept = [line for line in known_hosts.read_text().splitlines() if not line.startswith(address)]
    known_hosts.write_text("\n".join([*kept, *scanned.stdout.splitlines()]) + "\n")
