from __future__ import annotations

from pathlib import Path

from provision.lab import argv
from provision.lab.layout import lay_out
from provision.lab.shape import Shape

LAB = lay_out(name="lab", subnet="10.77.0.0/24", count=2, disk_bytes=1 << 30, base=Path("/c/a b/root"))
NODE = LAB.nodes[1]
FOLDER = "/var/lib/clusterwright/labs/lab"


def test_a_keeper_runs_in_namespaces_that_die_with_it() -> None:
    assert argv.keeper(LAB, NODE, python="/venv/python", systemd=False, cores=[0, 2]) == (
        *("taskset", "--cpu-list", "0,2"),
        *("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--"),
        *("/venv/python", "-m", "provision.lab.keeper", "--folder", f"{FOLDER}/nodes/te2"),
        *("--base", "/c/a b/root", "--serial", NODE.serial, "--own-cgroup"),
    )


def test_under_systemd_a_keeper_runs_in_a_delegated_scope() -> None:
    assert argv.keeper(LAB, NODE, python="/venv/python", systemd=True, cores=[1]) == (
        *("systemd-run", "--scope", "--quiet", "--collect", "--unit=clusterwright-lab-te2"),
        *("--slice=machine.slice", "--property=Delegate=yes", "--"),
        *("taskset", "--cpu-list", "1"),
        *("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--"),
        *("/venv/python", "-m", "provision.lab.keeper", "--folder", f"{FOLDER}/nodes/te2"),
        *("--base", "/c/a b/root", "--serial", NODE.serial),
    )


def test_a_keeper_lays_the_layers_of_a_snapshot_over_the_image() -> None:
    layers = [Path("/s/1"), Path("/s/0")]
    words = argv.keeper(LAB, NODE, python="/venv/python", systemd=False, cores=[0], layers=layers)

    assert words[-5:] == ("--layer", "/s/1", "--layer", "/s/0", "--own-cgroup")


def test_a_snapshot_is_copied_where_its_mounts_go_with_the_process() -> None:
    assert argv.capture(LAB, python="/venv/python", target=Path("/s/.lab.partial"), file_system_bytes=9) == (
        *("unshare", "--mount", "--", "/venv/python", "-m", "provision.lab.capture", "--folder", FOLDER),
        *("--target", "/s/.lab.partial", "--file-system-bytes", "9"),
    )


def test_what_is_frozen_is_mounted_read_only_and_what_nodes_write_is_not() -> None:
    assert argv.mount_snapshot(LAB, Path("/s/proven/files.xfs")) == [
        (
            *("mount", "-t", "xfs", "-o", "loop,discard,noatime"),
            *("/s/proven/files.xfs", f"{FOLDER}/snapshot"),
        ),
        ("mount", "--bind", f"{FOLDER}/snapshot/live", f"{FOLDER}/nodes"),
        ("mount", "-o", "remount,bind,ro", f"{FOLDER}/snapshot"),
    ]


def test_a_node_boots_with_its_disk_as_vdb_and_without_the_clock() -> None:
    words = argv.nspawn(root=Path("/run/lab/root"), machine="lab-te2", disks=["/dev/loop3"], serial="5e71a1")

    assert words == (
        *("systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit", "--console=pipe"),
        *("--resolv-conf=off", "--timezone=off", "--link-journal=no", "--machine=lab-te2"),
        *("--directory=/run/lab/root", "--network-namespace-path=/proc/self/ns/net"),
        *("--bind=/dev/loop3:/dev/vdb", "--setenv=LAB_VDB_SERIAL=5e71a1"),
        "--capability=CAP_NET_ADMIN,CAP_IPC_LOCK",
    )


def test_the_bridge_has_a_mac_of_its_own_before_any_node_joins() -> None:
    assert argv.make_bridge(LAB) == [
        ("ip", "link", "add", "name", "cwlab", "address", LAB.mac, "type", "bridge"),
        ("ip", "address", "replace", "10.77.0.1/24", "dev", "cwlab"),
        ("ip", "link", "set", "dev", "cwlab", "up"),
    ]


def test_a_cable_carries_only_when_all_the_rest_is_done() -> None:
    inside = ("nsenter", "--target=77", "--net")

    assert argv.connect(LAB, NODE, pid=77, shape=Shape(egress="1gbit")) == [
        (
            *("ip", "link", "add", "name", "cwlab-te2", "type", "veth"),
            *("peer", "name", "eth0", "address", NODE.mac, "netns", "77"),
        ),
        (*inside, "ip", "link", "set", "dev", "lo", "up"),
        (*inside, "ip", "address", "add", "10.77.0.12/24", "dev", "eth0"),
        (*inside, "ip", "link", "set", "dev", "eth0", "up"),
        (
            *(*inside, "tc", "qdisc", "replace", "dev", "eth0", "root", "tbf", "rate", "1gbit"),
            *("burst", "500000b", "latency", "50ms"),
        ),
        ("ip", "link", "set", "dev", "cwlab-te2", "master", "cwlab", "up"),
    ]


def test_ssh_accepts_the_nodes_own_key_and_no_other() -> None:
    assert argv.ssh(LAB, NODE, ["uname", "-a"]) == (
        *("ssh", "-i", f"{FOLDER}/ssh_key", "-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=yes"),
        *("-o", f"UserKnownHostsFile={FOLDER}/known_hosts", "-o", "GlobalKnownHostsFile=none"),
        *("-o", "ConnectTimeout=10", "root@10.77.0.12", "uname", "-a"),
    )


def test_the_file_server_is_known_by_its_labs_folder() -> None:
    assert argv.file_server(LAB, python="/venv/python", served=Path("/cache/mirror/current")) == (
        *("/venv/python", "-m", "provision.lab.file_server", "--folder", FOLDER),
        *("--served", "/cache/mirror/current", "--address", "10.77.0.1", "--port", "8080"),
    )
