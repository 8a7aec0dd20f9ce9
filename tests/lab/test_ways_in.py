"""No run locks an owner out, loosens what a site has set, or changes the ssh of other people."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.conftest import JOB_USER, Finished, LabUnderTest, changed, made, playbook, provision

TRUST = ("--tags", "node_access,host_names,ssh_trust,sshd_policy")
TAKE_PASSWORDS = (
    "echo root:x | chpasswd; "
    "sed -i '1i PermitRootLogin yes\\nPasswordAuthentication yes' /etc/ssh/sshd_config; systemctl restart ssh"
)
UBUNTU = (
    "useradd --create-home --shell /bin/bash ubuntu; echo ubuntu:x | chpasswd; "
    "echo 'ubuntu ALL=(ALL:ALL) ALL' > /etc/sudoers.d/ubuntu; "
    "install -d -o ubuntu -g ubuntu -m 700 ~ubuntu/.ssh; "
    "install -o ubuntu -g ubuntu -m 600 ~/.ssh/authorized_keys ~ubuntu/.ssh/authorized_keys"
)
AS_UBUNTU = {"ansible_user": "ubuntu", "ansible_become": True, "ansible_become_password": "x"}
SETTINGS = "/etc/ssh/sshd_config.d/10-clusterwright.conf"


@pytest.fixture(scope="module")
def ways_lab(lab_machine: None) -> Iterator[LabUnderTest]:
    yield from made("ways", "10.77.223.0/24", 2)


@pytest.fixture
def ways(ways_lab: LabUnderTest) -> LabUnderTest:
    """Two blank nodes."""
    ways_lab.reset()
    return ways_lab


def everywhere(lab: LabUnderTest, command: str) -> None:
    lab.out_of_all(f"{{ {command}; }} >/dev/null")


def given(variables: dict[str, object]) -> tuple[str, str]:
    return "-e", json.dumps(variables)


def said(finished: Finished) -> str:
    """All that a run printed, as if its lines had no end."""
    return " ".join((finished.stdout + finished.stderr).split())


def stranger(folder: Path) -> Path:
    """A key that no node knows."""
    key = folder / "stranger"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    return key


def with_password(folder: Path) -> tuple[str, ...]:
    """As `site.yml -k` of somebody whose key no node knows."""
    answer = folder / "password"
    answer.write_text("x\n")
    key = given({"ansible_ssh_private_key_file": str(stranger(folder))})
    return "--connection-password-file", str(answer), *key


def test_passwords_stay_until_a_key_was_proven(ways: LabUnderTest, tmp_path: Path) -> None:
    everywhere(ways, TAKE_PASSWORDS)
    before = ways.out_of_all("cat /etc/hosts /etc/ssh/sshd_config; ls -R /etc/ssh")
    by_password = with_password(tmp_path)

    refused = playbook(ways, *TRUST, *by_password, check=False)
    of_one_role = playbook(ways, "--tags", "sshd_policy", *by_password, check=False)

    assert refused.returncode != 0
    assert f"ssh-copy-id -i {tmp_path}/stranger.pub root@{ways.address('te1')}" in said(refused)
    assert f"root@{ways.address('te2')}" in said(refused)
    assert of_one_role.returncode != 0
    assert ways.out_of_all("cat /etc/hosts /etc/ssh/sshd_config; ls -R /etc/ssh") == before


# The gate has one site whose passwords stay (above) and, in the four runs, one whose passwords go.
@pytest.mark.long
def test_a_site_may_keep_passwords(ways: LabUnderTest, tmp_path: Path) -> None:
    everywhere(ways, TAKE_PASSWORDS)

    playbook(ways, *TRUST, *with_password(tmp_path), *given({"cluster_password_login": True}))

    assert "passwordauthentication yes" in ways.out("te1", "sshd -T")
    assert ways.out("te1", "ssh -o BatchMode=yes te2 hostname", user=JOB_USER) == "te2"


@pytest.mark.long
def test_a_password_is_switched_off_where_a_key_was_proven(ways: LabUnderTest) -> None:
    everywhere(ways, TAKE_PASSWORDS)

    playbook(ways, *TRUST)
    again = playbook(ways, *TRUST)

    assert "passwordauthentication no" in ways.out("te1", "sshd -T")
    assert not any(changed(again).values())


# A stand-in for any site whose daemon refuses us once our settings are live: no key is known from then on.
UNTIL_OURS = f"""printf '%s\\n' '#!/bin/sh' 'test -e {SETTINGS} || cat /root/keys' > /usr/local/sbin/keys
chmod 755 /usr/local/sbin/keys; mv ~/.ssh/authorized_keys /root/keys
sed -i '1i AuthorizedKeysCommand /usr/local/sbin/keys\\nAuthorizedKeysCommandUser root' /etc/ssh/sshd_config
systemctl restart ssh"""
NEVER_AGAIN = f"""mkdir -p /etc/systemd/system/ssh.service.d
printf '[Service]\\nExecStartPre=/usr/bin/test ! -e {SETTINGS}\\n' > /etc/systemd/system/ssh.service.d/x.conf
systemctl daemon-reload"""


@pytest.mark.parametrize(
    "spoilt",
    [
        pytest.param(UNTIL_OURS, id="the key is refused"),
        pytest.param(NEVER_AGAIN, id="sshd does not start", marks=pytest.mark.long),
    ],
)
def test_settings_that_lock_the_owner_out_are_put_back(ways: LabUnderTest, spoilt: str) -> None:
    ways.run("te2", spoilt)

    failed = playbook(ways, *TRUST, check=False)

    assert ways.run("te2", "hostname", check=False).stdout.strip() == "te2"
    assert failed.returncode != 0
    assert "te2: its sshd is as it was before" in said(failed)
    assert "passwordauthentication yes" in ways.out("te2", "sshd -T")
    assert ways.out("te2", f"ls {SETTINGS} 2>&1 | grep -c 'No such'") == "1"
    assert "passwordauthentication no" in ways.out("te1", "sshd -T")


@pytest.mark.parametrize(
    "where", ["sshd_config.d/00-hardening.conf", pytest.param("sshd_config", marks=pytest.mark.long)]
)
def test_root_is_not_let_in_where_the_site_forbids_it(ways: LabUnderTest, where: str) -> None:
    everywhere(ways, f"{UBUNTU}; echo 'PermitRootLogin no' >> /etc/ssh/{where}; systemctl restart ssh")
    as_ubuntu = {**AS_UBUNTU, "cluster_user": "ubuntu"}

    playbook(ways, *TRUST, *given(as_ubuntu))
    again = playbook(ways, *TRUST, *given(as_ubuntu))
    for_root = playbook(ways, *TRUST, *given({**AS_UBUNTU, "cluster_user": "root"}), check=False)

    assert not any(changed(again).values())
    assert for_root.returncode != 0
    assert f"/etc/ssh/{where}:" in said(for_root)
    assert sudo(ways, "te1", "sshd -T | grep ^permitrootlogin") == "permitrootlogin no"
    assert sudo(ways, "te1", "runuser -u ubuntu -- ssh -o BatchMode=yes te2 hostname") == "te2"


def sudo(lab: LabUnderTest, node: str, command: str) -> str:
    """What a command prints on a node that lets only ubuntu in."""
    words = ["ssh", "-i", str(lab.lab.ssh_key), "-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=yes"]
    known = ["-o", f"UserKnownHostsFile={lab.lab.known_hosts}", "-o", "BatchMode=yes"]
    ask = f"echo x | sudo -S -p '' sh -c {subprocess.list2cmdline([command])}"
    finished = subprocess.run(
        [*words, *known, f"ubuntu@{lab.address(node)}", ask],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.strip()


# In the gate test_policy_lines works both out from sshd's own words.
@pytest.mark.long
def test_settings_that_slept_are_not_woken_and_larger_ones_not_lowered(ways: LabUnderTest) -> None:
    asleep = (
        "sed -i 's/^Include/# Include/' /etc/ssh/sshd_config; "
        "echo 'MaxStartups 500:20:900' >> /etc/ssh/sshd_config; "
        "echo 'AllowUsers nobody' > /etc/ssh/sshd_config.d/old.conf; systemctl restart ssh"
    )
    everywhere(ways, asleep)

    playbook(ways, *TRUST)
    again = playbook(ways, *TRUST)

    settings = ways.out("te1", "sshd -T").splitlines()
    assert "maxstartups 500:20:900" in settings
    assert "passwordauthentication no" in settings
    assert not any(line.startswith("allowusers") for line in settings)
    assert not any(changed(again).values())


KEYS = "/root/.ssh/authorized_keys"


@pytest.fixture
def owner(ways: LabUnderTest, tmp_path: Path) -> Iterator[tuple[str, ...]]:
    """Root logs in with the cluster's key by an ssh config alone, on nodes that let it in from everywhere."""
    playbook(ways, *TRUST, *given({"cluster_user": "root"}))
    secrets, config = ways.lab.folder / "secrets", tmp_path / "config"
    key = (secrets / "cluster_key.pub").read_text().strip()
    everywhere(ways, f"sed -i '/clusterwright/d' {KEYS}; echo '{key}' >> {KEYS}")
    known = f"StrictHostKeyChecking yes\nUserKnownHostsFile {ways.lab.known_hosts}\n"
    config.write_text(f"{known}IdentitiesOnly yes\nIdentityFile {secrets}/cluster_key\n")
    by_config = {"ansible_ssh_private_key_file": "", "ansible_ssh_common_args": f"-F {config}"}
    of_owner = ways.inventory / "group_vars" / "all" / "owner.yml"
    of_owner.write_text(json.dumps({**by_config, "cluster_user": "root"}))
    yield "ssh", "-F", str(config), "-o", "BatchMode=yes", "-o", "ControlPath=none"
    of_owner.unlink()


def state(lab: LabUnderTest) -> list[str]:
    """The text of authorized_keys on each node, and which file it is: written anew, it is another."""
    return lab.out_of_all(f"cat {KEYS}; stat -c '%i %z' {KEYS}")


def gets_in(lab: LabUnderTest, ssh: tuple[str, ...]) -> list[bool]:
    """Whether the owner still opens each node, in a connection of its own."""
    return [
        subprocess.run([*ssh, f"root@{lab.address(node)}", "true"], timeout=30, check=False).returncode == 0
        for node in lab.nodes
    ]


def test_the_key_by_which_the_owner_logs_in_is_not_closed(ways: LabUnderTest, owner: tuple[str, ...]) -> None:
    before, hosts = state(ways), (ways.inventory / "hosts.yml").read_text()
    secrets = sorted(path.name for path in (ways.lab.folder / "secrets").iterdir())
    controller = str(ways.lab.gateway)

    by_site = playbook(ways, "--tags", "ssh_trust", check=False)
    by_members = playbook(ways, "playbooks/members.yml", check=False)
    removed = provision("node", "remove", "te2", "-i", str(ways.inventory), check=False)

    for refused in (by_site, by_members, removed):
        assert refused.returncode != 0
        assert "~root/.ssh/authorized_keys: you log in with the key SHA256:" in said(refused)
        assert f"from {controller}, by a line that would go" in said(refused)
        assert f"ssh-copy-id root@{ways.address('te1')}" in said(refused)
    assert f"add {controller} to ssh_trust_key_from" in said(by_site)
    assert f"add {controller} to ssh_trust_key_from" not in said(removed)
    assert state(ways) == before
    assert (ways.inventory / "hosts.yml").read_text() == hosts
    assert sorted(path.name for path in (ways.lab.folder / "secrets").iterdir()) == secrets
    playbook(ways, "playbooks/members.yml", *given({"ssh_trust_key_from": [controller]}))
    assert all(f'{controller}",restrict,pty' in text for text in state(ways))
    assert gets_in(ways, owner) == [True, True]


@pytest.mark.long
@pytest.mark.usefixtures("mirror")
def test_a_site_whose_sudo_asks_goes_from_start_to_end(ways: LabUnderTest) -> None:
    everywhere(ways, UBUNTU)
    variables = ways.inventory / "group_vars" / "all" / "sudo.yml"
    variables.write_text(json.dumps(AS_UBUNTU))

    try:
        playbook(ways)
        status = provision("status", "-i", str(ways.inventory), check=False)
        smoke = provision("smoke", "--quick", "-i", str(ways.inventory), check=False)
        variables.write_text(json.dumps({**AS_UBUNTU, "ansible_become_password": "wrong"}))
        wrong = playbook(ways, "--tags", "smoke_test", check=False)
        of_status = provision("status", "-i", str(ways.inventory), check=False)
    finally:
        variables.unlink()

    assert status.returncode == 0, status.stdout + status.stderr
    assert smoke.returncode == 0, smoke.stdout + smoke.stderr
    assert wrong.returncode != 0
    assert "has no attribute" not in said(wrong)
    assert "Incorrect sudo password" in said(wrong)
    assert "ansible_become_password" in said(of_status)


def test_the_ssh_of_other_people_stays_as_it_was(ways: LabUnderTest) -> None:
    everywhere(ways, "useradd --create-home other; mkdir -p /etc/pdsh; echo mrsh > /etc/pdsh/rcmd_default")
    everywhere(ways, "echo 'git.example ssh-ed25519 AAAA' > /etc/ssh/ssh_known_hosts")

    playbook(ways, *TRUST)

    to_node, to_itself, by_cluster_user = (
        ways.out("te1", command).splitlines()
        for command in (
            "runuser -u other -- ssh -G te2",
            "runuser -u other -- ssh -G localhost",
            f"runuser -u {JOB_USER} -- ssh -G te2",
        )
    )
    assert "identityfile ~/.ssh/id_ed25519" in to_node
    assert "identityfile ~/.ssh/clusterwright_ed25519" not in to_node
    assert "stricthostkeychecking ask" in to_node  # another daemon at te2:2222 is met as anywhere
    assert "stricthostkeychecking ask" in to_itself
    assert "identityfile ~/.ssh/id_ed25519" in by_cluster_user
    assert "identityfile ~/.ssh/clusterwright_ed25519" in by_cluster_user
    assert "stricthostkeychecking true" in by_cluster_user
    assert ways.out("te1", "ssh -o BatchMode=yes te2 hostname", user=JOB_USER) == "te2"
    assert ways.out("te1", "cat /etc/pdsh/rcmd_default") == "mrsh"
    assert "git.example ssh-ed25519 AAAA" in ways.out("te1", "cat /etc/ssh/ssh_known_hosts")


CONFIG = "/etc/ssh/sshd_config"
SSH_FILES = "cat /etc/hosts; getent passwd trainer; find /etc/ssh -type f | sort | xargs sha256sum"


def test_whom_a_site_lets_in_is_asked_before_anything_is_changed(ways: LabUnderTest) -> None:
    te1, te2 = map(ways.address, ways.nodes)
    ways.run("te1", f"echo 'AllowUsers root ann' >> {CONFIG}; systemctl restart ssh")
    block = f"Match Address {te1},{te2} User *\\n  PasswordAuthentication yes\\n  DenyGroups train*"
    ways.run("te2", f"printf '{block}\\n' > /etc/ssh/sshd_config.d/00-a.conf; systemctl restart ssh")
    before = ways.out_of_all(SSH_FILES)

    refused = playbook(ways, *TRUST, check=False)

    assert refused.returncode != 0
    assert ways.out_of_all(SSH_FILES) == before
    text = said(refused)
    let = "sshd would not let trainer, the user of jobs, in from"
    assert f"{let} te2 ({te2}): 'AllowUsers root ann' ({CONFIG}:" in text
    assert "add trainer to it yourself and reload sshd" in text
    assert "'DenyGroups train*' (/etc/ssh/sshd_config.d/00-a.conf:3, in Match Address" in text
    assert "'PasswordAuthentication yes' (/etc/ssh/sshd_config.d/00-a.conf:2, in Match Address" in text
    assert "cluster_without: [sshd_policy]" in text
    assert "No node was changed" in text
    ways.run("te1", f"sed -i 's/AllowUsers .*/& trainer@{te2}/' {CONFIG}; systemctl restart ssh")
    # Of a Match for other people, and one left open at the end of a file before ours, nothing is said.
    others = "Match User ann,bob\\n  PasswordAuthentication yes"
    ways.run("te2", f"printf '{others}\\n' > /etc/ssh/sshd_config.d/00-a.conf; systemctl restart ssh")
    playbook(ways, *TRUST)
    again = playbook(ways, *TRUST)
    assert not any(changed(again).values())
    assert ways.out("te1", "ssh -o BatchMode=yes te2 hostname", user=JOB_USER) == "te2"
    assert ways.out("te2", "ssh -o BatchMode=yes te1 hostname", user=JOB_USER) == "te1"
    assert ways.out("te1", f"grep ^AllowUsers {CONFIG}") == f"AllowUsers root ann trainer@{te2}"


def test_you_are_not_locked_out_by_lines_that_sshd_has_not_read_yet(ways: LabUnderTest) -> None:
    ways.run("te2", f"echo 'AllowUsers trainer' >> {CONFIG}")

    refused = playbook(ways, *TRUST, check=False)

    assert refused.returncode != 0
    assert f"sshd's files refuse root from {ways.lab.gateway}, which is you: 'AllowUsers trainer'" in said(
        refused
    )


def test_keys_may_stand_elsewhere_and_the_policy_may_be_the_site_s(ways: LabUnderTest) -> None:
    keys = "/etc/ssh/keys"
    everywhere(
        ways,
        f"install -d {keys}; install -m 644 /root/.ssh/authorized_keys {keys}/root; "
        f"echo 'PasswordAuthentication yes' > /etc/ssh/sshd_config.d/00-first.conf; "
        f"printf 'Match User *\\n  AuthorizedKeysFile {keys}/%%u\\n' >> {CONFIG}; systemctl restart ssh",
    )
    before = ways.out_of_all(SSH_FILES)

    refused = playbook(ways, *TRUST, check=False)
    of_site = ways.inventory / "group_vars" / "all" / "keys.yml"
    elsewhere = {"ssh_trust_authorized_keys": f"{keys}/trainer"}
    of_site.write_text(json.dumps({**elsewhere, "cluster_without": ["sshd_policy"]}))
    try:
        playbook(ways, *TRUST)
        left = ways.out("te1", f"sshd -T | grep ^passwordauth; ls {SETTINGS} || true")
        of_site.write_text(json.dumps(elsewhere))
        playbook(ways, *TRUST)
        again = playbook(ways, *TRUST)
        policed = ways.out("te1", "sshd -T | grep ^passwordauth")
        reached = ways.out("te1", "ssh -o BatchMode=yes te2 hostname", user=JOB_USER)
        owner = ways.out("te1", f"stat -c '%a %U' {keys}/trainer; ls /home/trainer/.ssh")
        playbook(ways, "playbooks/members.yml")
        playbook(ways, "playbooks/teardown.yml", *given({"teardown_confirm": ways.name}))
    finally:
        of_site.unlink()

    assert refused.returncode != 0
    assert f"set ssh_trust_authorized_keys to a file that sshd reads ({keys}/trainer)" in said(refused)
    assert left == "passwordauthentication yes"
    assert (policed, reached) == ("passwordauthentication no", "te2")
    assert owner == "644 root\nclusterwright_ed25519"
    assert not any(changed(again).values())
    assert ways.out_of_all(SSH_FILES) == before
