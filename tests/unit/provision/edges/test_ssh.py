"""A machine that cannot be reached is an error with a reason, whatever it does; real sockets on loopback."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import paramiko
import pytest

from provision.diagnose.questions import ask
from provision.edges import ssh
from provision.edges.ssh_channel import opened
from provision.errors import CommandFailed
from provision.model import Machine
from tests.conftest import RecordRefusal

Behaviour = Callable[[socket.socket], object]


@contextmanager
def listening(behaves: Behaviour) -> Iterator[str]:
    """An address where each connection gets the behaviour, and is closed after it."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                behaves(connection)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / ".ssh").mkdir()
    words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / ".ssh" / "id_ed25519"]
    subprocess.run(words, check=True)
    (tmp_path / ".ssh" / "known_hosts").touch()
    return tmp_path


def machine(home: Path, address: str) -> Machine:
    host, _, port = address.partition(":")
    return Machine(
        name="te2",
        address=host,
        user="root",
        port=int(port or 22),
        key_files=(home / ".ssh" / "id_ed25519",),
        known_hosts=(home / ".ssh" / "known_hosts",),
    )


def hang_up(_: socket.socket) -> None:
    pass


def hang_up_after_the_banner(connection: socket.socket) -> None:
    connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")


def hang_up_while_keys_are_exchanged(connection: socket.socket) -> None:
    connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")
    connection.recv(1 << 16)


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")


def speak_garbage(connection: socket.socket) -> None:
    connection.sendall(os.urandom(1 << 12))


def speak_garbage_after_the_banner(connection: socket.socket) -> None:
    connection.sendall(b"SSH-2.0-x\r\n" + os.urandom(1 << 12))


def speak_http(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def never_speak(connection: socket.socket) -> None:
    while connection.recv(1 << 16):
        pass


@pytest.mark.parametrize(
    "behaves",
    [
        hang_up,
        hang_up_after_the_banner,
        hang_up_while_keys_are_exchanged,
        reset,
        speak_garbage,
        speak_garbage_after_the_banner,
        speak_http,
        never_speak,
    ],
)
def test_what_is_no_ssh_server_is_an_error_with_a_reason(home: Path, behaves: Behaviour) -> None:
    with listening(behaves) as address, pytest.raises(CommandFailed) as failed:
        ssh.run(machine(home, address), ("true",), timeout_seconds=5)

    host, _, port = address.partition(":")
    assert failed.value.asked == f"reach te2 at [{host}]:{port}"
    assert any(words in failed.value.found for words in ("hung up", "no ssh server", "gave no answer"))
    assert failed.value.fix.startswith("Look at `systemctl status ssh`")


@pytest.mark.parametrize(
    ("address", "found"),
    [("127.0.0.1:1", "nothing listens at port 1 there"), ("no.such.name.invalid", "is not resolved")],
)
def test_where_nobody_is_the_reason_is_said(home: Path, address: str, found: str) -> None:
    with pytest.raises(CommandFailed) as failed:
        ssh.run(machine(home, address), ("true",), timeout_seconds=5)

    assert found in failed.value.found


@pytest.mark.parametrize("missing", ["known_hosts", "id_ed25519"])
@pytest.mark.parametrize("instead", ["nothing", "a folder"])
def test_a_file_of_the_user_that_cannot_be_read_is_named(home: Path, missing: str, instead: str) -> None:
    path = home / ".ssh" / missing
    path.unlink()
    if instead == "a folder":
        path.mkdir()

    with pytest.raises(CommandFailed) as failed:
        ssh.run(machine(home, "127.0.0.1:1"), ("true",), timeout_seconds=5)

    assert failed.value.found.startswith(f"{path}: ")


def test_one_machine_that_hangs_up_leaves_the_others_their_lines(home: Path) -> None:
    with listening(hang_up) as address:
        asked = ask([machine(home, address)], lambda _: None)

    assert "Look at `systemctl status ssh`" in asked.unreachable["te2"]


def test_status_shows_every_node_though_one_hangs_up(home: Path, tmp_path: Path) -> None:
    """The command as a person gives it: no traceback, no `Aborted.`, the status as its help says."""
    with listening(hang_up) as address:
        host, _, port = address.partition(":")
        hosts = {name: {"ansible_host": host, "ansible_port": 1} for name in ("te1", "te2")}
        hosts["te2"]["ansible_port"] = int(port)
        own = home / ".ssh"
        variables = {
            "ansible_ssh_private_key_file": str(own / "id_ed25519"),
            "ansible_ssh_common_args": f"-F none -o UserKnownHostsFile={own}/known_hosts",
        }
        site = {"cluster": {"hosts": hosts, "vars": variables}}
        (tmp_path / "hosts.yml").write_text(json.dumps(site))
        told = subprocess.run(
            [sys.executable, "-m", "provision.cli", "status", "-i", tmp_path / "hosts.yml"],
            capture_output=True,
            text=True,
            check=False,
        )

    said = told.stdout + told.stderr
    assert told.returncode == 1, said
    assert "te1" in told.stdout
    assert "te2" in told.stdout
    assert said.count("unreachable:") == 2
    assert "Aborted" not in said
    assert "Traceback" not in said


class Open(paramiko.ServerInterface):
    """A node that lets everybody in."""

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        return paramiko.AUTH_SUCCESSFUL

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.OPEN_SUCCEEDED


@contextmanager
def a_node_of(home: Path, server: type[Open]) -> Iterator[Machine]:
    key = paramiko.ECDSAKey.generate()

    def serve(connection: socket.socket) -> None:
        transport = paramiko.Transport(connection)
        transport.add_server_key(key)
        transport.start_server(server=server())
        transport.join()

    with listening(serve) as address:
        known = f"[127.0.0.1]:{address.rpartition(':')[2]} {key.get_name()} {key.get_base64()}\n"
        (home / ".ssh" / "known_hosts").write_text(known)
        yield machine(home, address)


class Greeting(Open):
    """A node whose root has a line in ~/.bashrc, which bash reads for a command of sshd's as well."""

    before = "printf welcome; "

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        def run() -> None:
            done = subprocess.run(
                ["bash", "-c", self.before.encode() + command], capture_output=True, check=False
            )
            channel.sendall(done.stdout)
            channel.sendall_stderr(done.stderr)
            channel.send_exit_status(done.returncode)
            channel.close()

        threading.Thread(target=run, daemon=True).start()
        return True


class Leaving(Greeting):
    """As where ~/.bashrc ends with `exit`, or becomes another shell."""

    before = "echo bye; exit; "


def test_what_a_login_shell_prints_beforehand_is_none_of_the_program_s_output(home: Path) -> None:
    lines: list[str] = []
    words = ("printf", "%s\\n", "it's", "$HOME", "two words")
    with a_node_of(home, Greeting) as node:
        ended = ssh.run(node, words, timeout_seconds=60, on_line=lines.append)
        copied = b"".join(ssh.download(node, words, timeout_seconds=60))
        with opened(node, words) as channel:
            read = b"".join(iter(lambda: channel.read(1 << 10), b""))

    assert ended.stdout == "it's\n$HOME\ntwo words\n"
    assert lines == ended.stdout.splitlines()
    assert copied == read == ended.stdout.encode()


def test_a_login_shell_that_ends_first_is_not_taken_for_success(home: Path) -> None:
    with a_node_of(home, Leaving) as node:
        with pytest.raises(CommandFailed, match="login shell of root ended before it ran that"):
            ssh.run(node, ("true",), timeout_seconds=60, check=False)
        with pytest.raises(CommandFailed, match="login shell of root ended before it ran that"):
            list(ssh.download(node, ("true",), timeout_seconds=60))


class Endless(Open):
    """A node whose programs never cease to print."""

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        say = {b"out": channel.sendall, b"err": channel.sendall_stderr}[command.split()[-1]]
        threading.Thread(target=self._print, args=(say,), daemon=True).start()
        return True

    def _print(self, say: Callable[[bytes], object]) -> None:
        with suppress(OSError):
            while True:
                say(b"x" * 32_768)


@pytest.mark.attack("node")
@pytest.mark.parametrize("stream", ["out", "err"])
def test_a_node_that_never_ceases_to_print_is_refused(
    home: Path, stream: str, record_refusal: RecordRefusal
) -> None:
    with (
        a_node_of(home, Endless) as node,
        pytest.raises(CommandFailed, match="it printed more than 16 MiB") as refusal,
    ):
        ssh.run(node, [stream], timeout_seconds=60)
    record_refusal(refusal.value)
