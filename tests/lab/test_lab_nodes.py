"""A node of the lab is what a cloud hands out: booted, alike, without knowledge of its neighbours."""

from __future__ import annotations

import os

from tests.lab.conftest import LabUnderTest, provision


def test_every_node_has_booted_with_its_own_systemd_and_nothing_has_failed(lab: LabUnderTest) -> None:
    assert lab.out_of_all("systemctl is-system-running --wait") == ["running"] * 4
    assert lab.out_of_all("cat /proc/1/comm") == ["systemd"] * 4


def test_no_unit_waits_for_itself(lab: LabUnderTest) -> None:
    """systemd breaks a cycle by leaving a unit out, at some boots the mounts of fstab."""
    assert "cycle" not in lab.run("te1", "systemd-analyze verify default.target 2>&1", check=False).stdout


def test_all_nodes_begin_with_the_same_host_name_and_know_nobody(fresh_lab: LabUnderTest) -> None:
    assert fresh_lab.out_of_all("hostname") == ["debian"] * 4
    assert fresh_lab.out_of_all("grep -c te /etc/hosts || true") == ["0"] * 4
    assert fresh_lab.out_of_all("ls /etc/ssh/ssh_known_hosts 2>/dev/null || true") == [""] * 4


def test_no_two_nodes_share_a_machine_id_a_host_key_or_a_boot(lab: LabUnderTest) -> None:
    for command in (
        "cat /etc/machine-id",
        "cat /etc/ssh/ssh_host_ed25519_key.pub",
        "cat /proc/sys/kernel/random/boot_id",
        "cat /sys/class/net/eth0/address",
        "ls /dev/disk/by-id",
    ):
        found = lab.out_of_all(command)
        assert len(set(found)) == 4, command
        assert all(found), command


def test_a_node_has_its_address_no_route_out_and_no_dns(lab: LabUnderTest) -> None:
    assert lab.out_of_all("ip -4 -oneline address show dev eth0 | awk '{print $4}'") == [
        f"{lab.address(node)}/24" for node in lab.nodes
    ]
    assert lab.out_of_all("ip route show default") == [""] * 4
    assert lab.out_of_all("getent hosts te1 || echo unknown")[1] == "unknown"


def test_one_key_is_authorised_and_a_password_may_still_be_tried(fresh_lab: LabUnderTest) -> None:
    assert fresh_lab.out_of_all("wc -l </root/.ssh/authorized_keys") == ["1"] * 4
    assert (
        fresh_lab.out_of_all("sshd -T | grep ^passwordauthentication") == ["passwordauthentication yes"] * 4
    )


def test_a_host_key_that_is_not_the_nodes_own_is_refused(lab: LabUnderTest) -> None:
    swap = "cd /etc/ssh && mv ssh_host_ed25519_key keep && mv ssh_host_ed25519_key.pub keep.pub"
    lab.run(
        "te3", f"{swap} && ssh-keygen -q -t ed25519 -N '' -f ssh_host_ed25519_key && systemctl restart ssh"
    )

    refused = lab.run("te3", "true", check=False)
    lab.reset("te3")

    assert refused.returncode == 255
    assert "HOST IDENTIFICATION HAS CHANGED" in refused.stderr
    assert lab.run("te3", "true").returncode == 0


def test_a_node_cannot_set_this_machines_clock(lab: LabUnderTest) -> None:
    assert "not permitted" in lab.run("te1", "date --set 2020-01-01", check=False).stderr


def test_a_node_has_processors_of_its_own_while_there_are_enough(lab: LabUnderTest) -> None:
    """As many threads on each node as this machine has cores would wait for each other most of the time."""
    ours = len(os.sched_getaffinity(0))

    assert lab.out_of_all("nproc") == [str(max(1, ours // 4))] * 4


def test_a_node_has_a_firewall_and_its_networks_parameters_to_itself(lab: LabUnderTest) -> None:
    lab.run("te1", "nft add table inet mine && sysctl -q -w net.core.somaxconn=1234")

    assert lab.out("te2", "nft list ruleset") == ""
    assert lab.out("te2", "sysctl -n net.core.somaxconn") != "1234"
    lab.run("te1", "nft delete table inet mine")


def test_a_service_that_stops_on_one_node_runs_on_on_the_others(lab: LabUnderTest) -> None:
    lab.run("te1", "systemctl stop dbus.socket dbus.service")

    assert lab.out("te2", "systemctl is-active dbus") == "active"
    lab.run("te1", "systemctl start dbus")


def test_the_shell_ends_with_the_commands_status(lab: LabUnderTest) -> None:
    assert lab.provision("shell", "te1", "exit 7", check=False).returncode == 7


def test_a_node_that_does_not_exist_is_answered_with_those_that_do(lab: LabUnderTest) -> None:
    refused = lab.provision("shell", "te9", check=False)

    assert refused.returncode == 2
    assert "te1 to te4" in refused.stderr


def test_a_lab_that_does_not_exist_is_answered_with_the_command_that_makes_it(lab_machine: None) -> None:
    refused = provision("lab", "status", "--name", "nolab", check=False)

    assert refused.returncode == 2
    assert "provision lab up --name nolab" in refused.stderr
