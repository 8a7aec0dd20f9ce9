"""Machines as sites have them: of another release, with sshd behind a socket, with a card and its driver."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.conftest import JOB_USER, STATE, Finished, LabUnderTest, changed, made, playbook
from tests.lab.standin_driver import FIRST, SECOND, THIRD, card, repository

ROCKY = "ID=rocky\nVERSION_ID=9.4\nPRETTY_NAME='Rocky Linux 9.4 (Blue Onyx)'\n"
UBUNTU_20 = "ID=ubuntu\nVERSION_ID=20.04\nPRETTY_NAME='Ubuntu 20.04.6 LTS'\n"
DRIVER = ("--tags", "node_access,nvidia_driver,nvidia_gpu")


@pytest.fixture(scope="module")
def machines_lab(lab_machine: None) -> Iterator[LabUnderTest]:
    yield from made("machines", "10.77.244.0/24", 2)


@pytest.fixture
def machines(machines_lab: LabUnderTest) -> LabUnderTest:
    """Two blank nodes."""
    machines_lab.reset()
    return machines_lab


def said(finished: Finished) -> str:
    """All that a run printed, as if its lines had no end."""
    return " ".join((finished.stdout + finished.stderr).split())


def given(**variables: object) -> tuple[str, str]:
    return "-e", json.dumps(variables)


def test_machines_that_no_role_is_written_for_are_named_at_once_before_anything_is_changed(
    machines: LabUnderTest,
) -> None:
    for node, release in (("te1", ROCKY), ("te2", UBUNTU_20)):
        machines.run(node, f"rm /etc/os-release; cat > /etc/os-release <<'END'\n{release}END")
    before = machines.out_of_all(STATE)

    refused = playbook(machines, *given(validate_sources=False), check=False)
    of_other_locks = playbook(
        machines, *given(validate_sources=False, cluster_architecture="aarch64"), check=False
    )

    assert refused.returncode != 0
    assert "No node was changed. 2 reason(s):" in said(refused)
    assert "te1: it has Rocky Linux 9.4 (Blue Onyx), and supported are Debian 12 (bookworm)" in said(refused)
    assert "te2: it has Ubuntu 20.04.6 LTS" in said(refused)
    assert "te2: its processor is x86_64, and the site's locks are for aarch64" in said(of_other_locks)
    assert machines.out_of_all(STATE) == before


# As Ubuntu 24.04 comes: the first connection starts the daemon, and nothing starts it at boot.
BY_SOCKET = "systemctl disable --now ssh.service; systemctl enable --now ssh.socket"


@pytest.mark.long
def test_sshd_behind_a_socket_takes_the_settings_and_stays_behind_it(machines: LabUnderTest) -> None:
    for node in machines.nodes:
        machines.run(node, f"echo root:x | chpasswd; systemd-run --quiet sh -c '{BY_SOCKET}'; sleep 1")
    trust = ("--tags", "node_access,host_names,job_user,ssh_trust,sshd_policy")

    playbook(machines, *trust)
    again = playbook(machines, *trust)

    assert not any(changed(again).values())
    state = "systemctl is-active ssh.socket; systemctl is-enabled ssh.socket ssh.service || true"
    assert machines.out_of_all(state) == ["active\nenabled\ndisabled"] * 2
    assert "passwordauthentication no" in machines.out("te1", "sshd -T")
    offered = "ssh -o PubkeyAuthentication=no te2 true 2>&1 || true"
    assert "Permission denied (publickey)" in machines.out("te1", offered, user=JOB_USER)
    assert machines.out("te1", "ssh -o BatchMode=yes te2 hostname", user=JOB_USER) == "te2"


@pytest.fixture
def driven(machines: LabUnderTest, tmp_path: Path) -> tuple[LabUnderTest, Path]:
    """te1 has a card and an NVSwitch, te2 none; and a file of variables of a repository that lies on te1."""
    machines.run("te1", card())
    key = repository(tmp_path / "nvidia", machines.out("te1", "uname -r"), (FIRST,))
    send(machines, tmp_path / "nvidia")
    variables = machines.inventory / "group_vars" / "all" / "driver.yml"
    source = {"nvidia_driver_apt_source": "file:///srv/nvidia", "nvidia_driver_apt_key": key}
    driver = {"nvidia_driver_version": "580", "nvidia_gpu_enabled": True, "validate_sources": False}
    variables.write_text(json.dumps({**source, **driver, "nvidia_driver_apt_suite": "./"}))
    return machines, variables


def send(lab: LabUnderTest, folder: Path) -> None:
    """The repository onto te1."""
    words = ["-i", str(lab.lab.ssh_key), "-o", f"UserKnownHostsFile={lab.lab.known_hosts}", "-r", str(folder)]
    lab.run("te1", "rm -rf /srv/nvidia")
    target = f"root@{lab.address('te1')}:/srv/nvidia"
    subprocess.run(["scp", "-q", *words, target], check=True, timeout=60, capture_output=True)


# What a driver brings and a teardown takes: files and packages; apt's own lists stay.
THINGS = (
    "find /etc /usr /opt /var/lib/dkms-standin -xdev -type f -not -path '*/__pycache__/*' -printf '%p %m\\n'"
    " 2>/dev/null | sort; dpkg-query --show --showformat '${Package} ${Version}\\n'"
)


def test_a_driver_is_announced_installed_held_and_given_back(driven: tuple[LabUnderTest, Path]) -> None:
    lab, _ = driven
    before, blank = lab.out("te1", THINGS), lab.out_of_all(STATE)

    check = playbook(lab, *DRIVER, "--check")
    after_check = lab.out_of_all(STATE)
    first = playbook(lab, *DRIVER)
    second_check, second = playbook(lab, *DRIVER, "--check"), playbook(lab, *DRIVER)
    smi = lab.out(
        "te1", "nvidia-smi --query-gpu=driver_version,name; systemctl is-active nvidia-fabricmanager"
    )
    playbook(lab, "playbooks/teardown.yml", *given(teardown_confirm=lab.name))

    assert "te1: install open modules; apt offers none of" in said(check)
    assert changed(check)["te1"] > 0
    assert after_check == blank
    assert (changed(first)["te1"] > 0, changed(first)["te2"]) == (True, 0)
    assert [changed(run) for run in (second_check, second)] == [{"te1": 0, "te2": 0}] * 2
    assert smi.splitlines() == [f"{FIRST}, NVIDIA H100 80GB HBM3", "active"]
    assert lab.out("te1", THINGS) == before


@pytest.mark.long
def test_a_driver_is_replaced_when_the_site_says_so_and_the_node_is_rebooted_when_it_may(
    driven: tuple[LabUnderTest, Path], tmp_path: Path
) -> None:
    lab, variables = driven
    playbook(lab, *DRIVER)
    repository(tmp_path / "nvidia", lab.out("te1", "uname -r"), (FIRST, SECOND))
    send(lab, tmp_path / "nvidia")
    lab.run("te1", "apt-get update -qq && apt-get upgrade -y -qq")
    upgraded = lab.out("te1", "dpkg-query --show --showformat '${Version}' nvidia-open-580")
    kept = playbook(lab, *DRIVER)
    variables.write_text(json.dumps({**json.loads(variables.read_text()), "nvidia_driver_version": SECOND}))
    announced = playbook(lab, *DRIVER, "--check")
    refused = playbook(lab, *DRIVER, check=False)
    boot = lab.boot_id("te1")
    playbook(lab, *DRIVER, *given(nvidia_driver_reboot=True), timeout_seconds=300)
    again = playbook(lab, *DRIVER)

    assert upgraded == f"{FIRST}-0ubuntu1"
    assert not any(changed(kept).values())
    assert f"nvidia-open-580={SECOND}-0ubuntu1" in said(announced)
    assert refused.returncode != 0
    assert f"the driver {FIRST} is loaded and {SECOND} is installed: reboot it, or" in said(refused)
    assert lab.boot_id("te1") != boot
    assert lab.out("te1", "cat /sys/module/nvidia/version") == SECOND
    assert not any(changed(again).values())


PINNED = "cat /etc/apt/preferences.d/clusterwright-nvidia"


@pytest.mark.long
def test_a_driver_that_somebody_else_installed_is_not_replaced_unasked_and_comes_back(
    driven: tuple[LabUnderTest, Path], tmp_path: Path
) -> None:
    lab, variables = driven
    playbook(lab, *DRIVER)
    lab.run("te1", "rm /var/lib/clusterwright/packages /etc/apt/preferences.d/clusterwright-nvidia")
    theirs = lab.out("te1", "dpkg-query --show")
    wants = json.loads(variables.read_text())

    adopted, pinned = playbook(lab, *DRIVER), lab.out("te1", PINNED)
    variables.write_text(json.dumps({**wants, "nvidia_driver_version": "590"}))
    refused = playbook(lab, *DRIVER, check=False)
    kept = lab.out("te1", "dpkg-query --show")
    repository(tmp_path / "nvidia", lab.out("te1", "uname -r"), (FIRST, THIRD))
    send(lab, tmp_path / "nvidia")
    lab.run("te1", "echo 'deb [trusted=yes] file:/srv/nvidia ./' >/etc/apt/sources.list.d/own.list")
    may = given(nvidia_driver_replace=True, nvidia_driver_reboot=True)
    playbook(lab, *DRIVER, *may, timeout_seconds=300)
    replaced = lab.out("te1", "cat /sys/module/nvidia/version; sort /var/lib/clusterwright/replaced")
    again = playbook(lab, *DRIVER, *may)
    playbook(lab, "playbooks/teardown.yml", *given(teardown_confirm=lab.name))

    assert f"Pin: version {FIRST}*" in pinned
    assert changed(adopted)["te1"] == 1
    assert f"another one is there that site.yml did not install: nvidia-open-580 {FIRST}-0ubuntu1" in said(
        refused
    )
    assert kept == theirs
    assert replaced.splitlines() == [THIRD, "nvidia-fabricmanager-580", "nvidia-open-580"]
    assert not any(changed(again).values())
    assert lab.out("te1", "dpkg-query --show") == theirs


@pytest.mark.long
@pytest.mark.usefixtures("mirror")
def test_an_upgrade_reboots_where_it_may_and_waits_and_changes_nothing_again(machines: LabUnderTest) -> None:
    upgrade = ("--tags", "node_access,base_packages")
    wanted = {"base_packages_upgrade": True, "base_packages_names": ["tmux"]}
    machines.run("te1", "touch /run/reboot-required")
    boots = machines.out_of_all("cat /proc/sys/kernel/random/boot_id")

    announced = playbook(machines, *upgrade, *given(**wanted))
    stayed = machines.out_of_all("cat /proc/sys/kernel/random/boot_id")
    playbook(machines, *upgrade, *given(**wanted, base_packages_reboot=True))
    after = machines.out_of_all("cat /proc/sys/kernel/random/boot_id")
    again = playbook(machines, *upgrade, *given(**wanted, base_packages_reboot=True))

    assert "te1: its packages ask for a reboot (/run/reboot-required). Reboot it, or let" in said(announced)
    assert stayed == boots
    assert (after[0] != boots[0], after[1]) == (True, boots[1])
    assert not any(changed(again).values())


@pytest.mark.long
@pytest.mark.usefixtures("mirror")
def test_a_reboot_that_does_not_bring_the_newest_kernel_is_named(machines: LabUnderTest) -> None:
    machines.run("te1", "mkdir -p /boot; touch /boot/vmlinuz-9$(uname -r)")
    wanted = {"base_packages_upgrade": True, "base_packages_names": ["tmux"], "base_packages_reboot": True}

    refused = playbook(machines, "--tags", "node_access,base_packages", *given(**wanted), check=False)

    assert refused.returncode != 0
    assert "te1: it was rebooted, and the kernel" in said(refused)
