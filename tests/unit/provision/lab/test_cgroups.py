from __future__ import annotations

from pathlib import Path

from provision.lab.cgroups import controlled_hierarchy, hierarchies

V1_HYBRID = """\
tmpfs /sys/fs/cgroup tmpfs rw 0 0
cgroup /sys/fs/cgroup/cpu cgroup rw,relatime,cpu 0 0
cgroup /sys/fs/cgroup/systemd cgroup rw,relatime,name=systemd 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0
"""
V2 = "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid,nodev,noexec,relatime,nsdelegate 0 0\n"


def test_on_a_hybrid_machine_systemd_keeps_groups_in_two_hierarchies() -> None:
    assert hierarchies(V1_HYBRID) == [Path("/sys/fs/cgroup/systemd"), Path("/sys/fs/cgroup/unified")]


def test_on_a_machine_of_today_there_is_one() -> None:
    assert hierarchies(V2) == [Path("/sys/fs/cgroup")]


def test_a_controller_s_hierarchy_is_that_of_version_1() -> None:
    both = "cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0\n"

    assert controlled_hierarchy(both, "cpu") == Path("/sys/fs/cgroup/cpu,cpuacct")
    assert controlled_hierarchy("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n", "cpu") is None
    assert controlled_hierarchy("cgroup /sys/fs/cgroup/cpuset cgroup rw,cpuset 0 0\n", "cpu") is None
