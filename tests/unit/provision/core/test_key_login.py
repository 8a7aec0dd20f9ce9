"""The login by key alone asks nobody, reuses nothing, and goes the way that Ansible goes."""

from __future__ import annotations

from provision.core.key_login import Way, copy_command, key_login

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
    assert words[-6:] == ["-J", "root@10.77.0.11", "-o", "UserKnownHostsFile=/a b", "root@10.77.0.12", "true"]


def test_what_puts_the_key_there_names_key_port_and_user() -> None:
    plain = Way(
        address="te1", user="", port="22", key_file="", arguments="", program="ssh", timeout_seconds=1
    )

    assert copy_command(WAY) == "ssh-copy-id -i '/home/a b/key.pub' -p 2222 root@10.77.0.12"
    assert copy_command(plain) == "ssh-copy-id te1"
