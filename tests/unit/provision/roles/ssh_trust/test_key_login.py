"""The login by key alone asks nobody, reuses nothing, and goes the way that Ansible goes."""

from __future__ import annotations

import pytest

from provision.roles.ssh_trust.key_login import Way, complaint, copy_command, key_login, opened_by

WAY = Way(
    address="10.77.0.12",
    user="root",
    port="2222",
    key_file="/home/a b/key",
    arguments="-o ControlMaster=auto -J root@10.77.0.11 -o 'UserKnownHostsFile=/a b'",
    program="ssh",
    timeout_seconds=10,
)


def test_the_options_of_the_login_come_before_those_of_the_site() -> None:
    words = key_login(WAY)

    options = words[: words.index("ControlMaster=auto")]
    for stated in (
        "BatchMode=yes",
        "PasswordAuthentication=no",
        "StrictHostKeyChecking=yes",
        "ControlMaster=no",
        "ControlPath=none",
        "Port=2222",
        'IdentityFile="/home/a b/key"',
    ):
        assert options[options.index(stated) - 1] == "-o"
    assert words[-6:-1] == ["-J", "root@10.77.0.11", "-o", "UserKnownHostsFile=/a b", "root@10.77.0.12"]


def test_what_puts_the_key_there_names_key_port_and_user() -> None:
    plain = Way(
        address="te1", user="", port="22", key_file="", arguments="", program="ssh", timeout_seconds=1
    )

    assert copy_command(WAY) == "ssh-copy-id -i '/home/a b/key.pub' -p 2222 root@10.77.0.12"
    assert copy_command(plain) == "ssh-copy-id te1"


JUMP = """\
OpenSSH_9.2p1 Debian-2+deb12u6, OpenSSL 3.0.17 1 Jul 2025\r
debug1: Offering public key: cluster ED25519 SHA256:aaa agent\r
debug1: Server accepts key: cluster ED25519 SHA256:aaa agent\r
Authenticated to te1 ([10.77.0.11]:22) using "publickey".\r
debug1: Server accepts key: cluster ED25519 SHA256:aaa agent\r
sign_and_send_pubkey: signing failed for ED25519 "cluster" from agent: agent refused operation\r
debug1: Server accepts key: /home/a b/key ED25519 SHA256:b/b+b explicit\r
Authenticated to te2 (via proxy) using "publickey".\r
"""


def test_the_key_is_the_one_that_the_node_itself_accepted_last() -> None:
    said = "motd\nubuntu\n10.0.0.9 50000 10.77.0.12 22\n"

    assert opened_by(said, JUMP) == {"key": "SHA256:b/b+b", "address": "10.0.0.9", "user": "ubuntu"}


@pytest.mark.parametrize(
    ("stdout", "stderr"),
    [("root\n10.0.0.9 1 2 3\n", ""), ("\n", JUMP), ("", JUMP), ("root\n\x1b[2J 1 2 3\n", JUMP)],
    ids=["quiet ssh", "no address", "nothing", "no address but text"],
)
def test_a_key_that_is_not_told_is_unknown_and_never_another(stdout: str, stderr: str) -> None:
    found = opened_by(stdout, stderr)

    assert set(found) == {"unknown"}
    assert found["unknown"].isprintable()


def test_who_gets_in_by_no_key_depends_on_no_line() -> None:
    assert opened_by("root\n10.0.0.9 1 2 3\n", 'Authenticated to te1 ([10.0.0.1]:22) using "none".\n') == {}


def test_a_refusal_is_told_without_what_verbose_adds() -> None:
    said = "OpenSSH_9.2p1\r\ndebug1: Connecting\r\nroot@te1: Permission denied (publickey).\r\n"

    assert complaint(said) == "root@te1: Permission denied (publickey)."
