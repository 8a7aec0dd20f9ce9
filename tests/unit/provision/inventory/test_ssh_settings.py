"""What is asked of OpenSSH, and the machine that its answer describes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from provision.errors import BadInput
from provision.inventory.ssh_settings import Place, machine_of, question
from provision.model import Machine, Sudo

LOGIN: dict[str, Any] = {
    "connection": "ssh",
    "host": "te1",
    "port": None,
    "remote_user": None,
    "timeout": 10,
    "become": None,
    "private_key_file": None,
    "private_key": None,
    "password": "",
    "ssh_executable": "ssh",
    "ssh_args": "-o StrictHostKeyChecking=yes",
    "ssh_common_args": "",
    "ssh_extra_args": None,
}
# Of OpenSSH 9.2, without its ciphers.
ANSWER = """\
host te1
user ada
hostname 10.0.0.1
port 22
identitiesonly no
identityfile ~/.ssh/id_rsa
identityfile ~/.ssh/id_ed25519
globalknownhostsfile /etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2
userknownhostsfile /home/ada/.ssh/known_hosts /home/ada/.ssh/known_hosts2
connecttimeout 10
"""
HOME = Path("/home/ada")
JUMP = "proxyjump root@[10.0.0.9]:2222"


def machine(answer: str = ANSWER, *, there: tuple[str, ...] = (), **changed: Any) -> Machine:
    place = Place(
        home=HOME, user="ada", environment={"SSH_AUTH_SOCK": "/run/agent"}, exists=there.__contains__
    )
    return machine_of("te1", {**LOGIN, **changed}, answer, place)


def test_ssh_is_asked_with_what_ansible_would_give_it_in_its_order() -> None:
    login = {**LOGIN, "port": 2222, "remote_user": "ubuntu", "private_key_file": "/home/a b/key"}
    login |= {"ssh_common_args": "-J 'root@a b'", "ssh_extra_args": "-F /x"}

    assert question(login) == [
        *("ssh", "-G", "-o", "StrictHostKeyChecking=yes", "-o", 'Port="2222"'),
        *("-o", 'IdentityFile="/home/a b/key"', "-o", 'User="ubuntu"', "-o", "ConnectTimeout=10"),
        *("-J", "root@a b", "-F", "/x", "--", "te1"),
    ]


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({"connection": "local"}, "ansible_connection is local"),
        ({"private_key": "-----BEGIN"}, "ansible_ssh_private_key holds the text"),
        ({"host": ""}, "its address is ''"),
        ({"host": "-oProxyCommand=x"}, "its address is '-oProxyCommand=x'"),
        ({"ssh_common_args": "-o 'x"}, "No closing quotation"),
        ({"remote_user": "ro\0ot"}, "hold a null byte"),
        ({"ssh_extra_args": "-V"}, "ask for no connection"),
    ],
)
def test_what_is_no_connection_of_openssh_is_named(changed: dict[str, str], found: str) -> None:
    with pytest.raises(BadInput) as refused:
        question({**LOGIN, **changed})

    assert found in refused.value.found


def test_a_machine_is_reached_as_openssh_says() -> None:
    found = machine(ANSWER.replace("port 22", "port 2222"), password="x", become={"method": "sudo"})

    assert (found.address, found.port, found.user, found.place) == (
        "10.0.0.1",
        2222,
        "ada",
        "[10.0.0.1]:2222",
    )
    assert found.key_files == (HOME / ".ssh/id_rsa", HOME / ".ssh/id_ed25519")
    assert found.known_hosts[:2] == (HOME / ".ssh/known_hosts", HOME / ".ssh/known_hosts2")
    assert found.known_hosts[2] == Path("/etc/ssh/ssh_known_hosts")
    assert (found.agent, found.way, found.sudo) == ("/run/agent", (), Sudo(flags=()))
    assert "password" not in repr(found)


@pytest.mark.parametrize(
    ("line", "agent"),
    [
        ("identityagent none", ""),
        ("identityagent SSH_AUTH_SOCK", "/run/agent"),
        ("identityagent $SSH_AUTH_SOCK", "/run/agent"),
        ("identityagent $OTHER", ""),
        ("identityagent ~/agent of %u", "/home/ada/agent of ada"),
    ],
)
def test_the_agent_is_the_one_that_ssh_would_ask(line: str, agent: str) -> None:
    assert machine(f"{ANSWER}{line}\n").agent == agent


def test_paths_may_hold_blanks_tokens_and_variables() -> None:
    text = ANSWER.replace("~/.ssh/id_rsa", "%d/a b/%h-%r ${SSH_AUTH_SOCK}")
    text = text.replace("/home/ada/.ssh/known_hosts /home/ada/.ssh/known_hosts2", "/x y /z")

    found = machine(text, there=("/x y",))

    assert found.key_files[0] == Path("/home/ada/a b/10.0.0.1-ada /run/agent")
    assert found.known_hosts[:2] == (Path("/x y"), Path("/z"))


def test_a_jump_host_is_met_strictly_and_by_nobody_s_questions() -> None:
    found = machine(f"{ANSWER}{JUMP}\n", ssh_common_args="-F '/a b' -J x")
    files = 'UserKnownHostsFile="/home/ada/.ssh/known_hosts" "/home/ada/.ssh/known_hosts2"'

    assert found.way == (
        *("ssh", "-F", "/a b", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", files),
        *("-o", "ConnectTimeout=10", "-l", "root", "-p", "2222", "10.0.0.9", "-W", "[10.0.0.1]:22"),
    )


@pytest.mark.parametrize(
    ("jump", "words"),
    [
        ("gw", ["gw"]),
        ("gw:33", ["-p", "33", "gw"]),
        ("a@b@gw", ["-l", "a@b", "gw"]),
        ("[fd00::1]", ["fd00::1"]),
        ("one,ada@two:33", ["-J", "one", "-l", "ada", "-p", "33", "two"]),
    ],
)
def test_a_jump_host_is_read_as_ssh_prints_it(jump: str, words: list[str]) -> None:
    way = machine(f"{ANSWER}proxyjump {jump}\n").way

    assert list(way[-len(words) - 2 : -2]) == words


def test_a_proxy_command_gets_what_its_tokens_stand_for() -> None:
    assert machine(f"{ANSWER}proxycommand nc %h %p '%%' # %n %r\n").way == (
        *("sh", "-c"),
        "exec nc 10.0.0.1 22 '%' # te1 ada",
    )
    assert machine(f"{ANSWER}proxycommand none\n").way == ()


def test_an_answer_of_another_program_is_refused() -> None:
    for answer in ("", "hostname a\nuser b\n", ANSWER.replace("port 22", "port x")):
        with pytest.raises(BadInput, match="does not answer as OpenSSH's does"):
            machine(answer)
