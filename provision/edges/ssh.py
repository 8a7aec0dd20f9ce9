"""The only door to other machines: Fabric with pinned host keys.

Fabric's Connection accepts any host key (it installs paramiko's add-silently policy); this one refuses
a machine that its known_hosts files do not hold.
"""

from __future__ import annotations

import logging
import shlex
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import StringIO
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from provision.edges import process
from provision.edges.process import Finished
from provision.edges.ssh_begin import MARK, after_mark, marked, skip_greeting
from provision.edges.ssh_words import COMPARE, TRY, filled, reach
from provision.errors import CommandFailed, ProvisionError
from provision.model import Machine
from provision.privilege import as_user, refuse

if TYPE_CHECKING:
    import fabric

_WINDOW_BYTES = 64 << 20
_CHUNK_BYTES = 1 << 20
# Of one stream of a program: an audit of a node where 10,000 files were changed has 1 MiB.
_MOST_LETTERS = 16 << 20
_AUTHENTICATION_SECONDS = 15
# Without a handler of its own the library's tracebacks go to standard error.
_SILENT = logging.NullHandler()


class _Heard(StringIO):
    """A stream that hands on each line as soon as it is whole, and refuses what never ends."""

    def __init__(self, on_line: Callable[[str], None] | None, too_much: CommandFailed) -> None:
        super().__init__()
        self._on_line, self._too_much = on_line, too_much
        self._left = _MOST_LETTERS
        self._line: list[str] = []  # the pieces of one that has no end yet
        self._has_begun = False

    def write(self, text: str) -> int:
        self._left -= len(text)
        if self._left < 0:
            raise self._too_much
        self._line.append(text)
        if "\n" in text and self._on_line:
            *lines, rest = "".join(self._line).split("\n")
            self._line = [rest]
            for line in lines:
                if self._has_begun:
                    self._on_line(line)
                self._has_begun = self._has_begun or line.endswith(MARK)
        return len(text)


@contextmanager
def connected(machine: Machine) -> Iterator[fabric.Connection]:
    """A connection whose host key is the machine's; what goes wrong in it is the machine's error."""
    import fabric  # here, since it takes a third of a second, and many commands ask no machine

    class Runner(fabric.runners.Remote):  # type: ignore[misc]
        """Joins all that was printed once, not with each piece that comes."""

        def respond(self, buffer_: list[str]) -> None:
            """Nobody waits for a text here."""

    from provision.edges.ssh_login import Login, PinnedKeys

    logging.getLogger("paramiko").addHandler(_SILENT)
    with _explained(machine):
        _refuse_hopeless(machine)
        pinned = PinnedKeys(machine)
        with _opened(machine) as wire, _tells_its_way(machine, wire):
            connection = fabric.Connection(
                machine.address,
                user=machine.user,
                port=machine.port,
                gateway=False,
                config=fabric.Config(
                    lazy=True,
                    overrides={
                        "runners": {"remote": Runner},
                        "authentication": {"strategy_class": lambda **_: Login(machine)},
                    },
                ),
                connect_kwargs={
                    "sock": wire.socket,
                    "disabled_algorithms": {"keys": pinned.other_algorithms},
                    "banner_timeout": machine.connect_seconds * (2 if machine.way else 1),
                    "auth_timeout": _AUTHENTICATION_SECONDS,
                    "channel_timeout": _AUTHENTICATION_SECONDS,
                },
            )
            connection.client.set_missing_host_key_policy(pinned)
            with connection:
                connection.open()
                yield connection


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wire:
    """An open way to a machine, and what the program that it goes through has said."""

    socket: socket.socket
    said: Callable[[], str]


@contextmanager
def _opened(machine: Machine) -> Iterator[_Wire]:
    if machine.way:
        with process.connected_by(machine.way) as (wire, said):
            yield _Wire(socket=wire, said=said)
        return
    target = (machine.address, machine.port)
    with socket.create_connection(target, timeout=machine.connect_seconds) as wire:
        yield _Wire(socket=wire, said=lambda: "")


@contextmanager
def _tells_its_way(machine: Machine, wire: _Wire) -> Iterator[None]:
    """Where the way there ended before the machine had spoken, what was said on it is the reason."""
    try:
        yield
    except ProvisionError:
        raise
    except Exception as e:
        said = wire.said()
        if not said:
            raise
        raise CommandFailed(reach(machine), found=f"its jump host or proxy: {said}", fix=_TRY_WAY) from e


def _refuse_hopeless(machine: Machine) -> None:
    """A fault that is known, and files that cannot be read, of which the library would not say which."""
    if machine.fault:
        raise CommandFailed(reach(machine), found=machine.fault.found, fix=machine.fault.fix)
    _refuse_unreadable(
        machine, machine.known_hosts, "Connect once by hand with ssh and compare its key with its console."
    )
    if not machine.agent and not machine.password:
        _refuse_unreadable(
            machine, machine.key_files, "Set ansible_ssh_private_key_file to your key, readable for you."
        )


def _refuse_unreadable(machine: Machine, paths: Sequence[Path], fix: str) -> None:
    """Where not one of them can be read."""
    reasons = []
    for path in paths:
        try:
            path.read_bytes()
        except OSError as e:
            reasons.append(f"{path}: {e.strerror}")
        else:
            return
    raise CommandFailed(reach(machine), found="; ".join(reasons) or "its settings name no file", fix=fix)


@contextmanager
def _explained(machine: Machine) -> Iterator[None]:
    """Whatever the libraries raise becomes this machine's error: they raise nearly everything."""
    from invoke.exceptions import ThreadException

    try:
        yield
    except ProvisionError:
        raise
    except ThreadException as e:  # from a reader of output: a broken pipe is where that output goes
        inner = e.exceptions[0].value
        if isinstance(inner, (BrokenPipeError, ProvisionError)):
            raise inner from e
        raise _unreached(machine, inner) from e
    except Exception as e:
        raise _unreached(machine, e) from e


@contextmanager
def _watched(connection: fabric.Connection, machine: Machine, seconds: float) -> Iterator[None]:
    """Closes a connection that is still in use after a time: not every wait of the library has an end."""
    expired = threading.Event()

    def close() -> None:
        expired.set()
        connection.transport.close()

    timer = threading.Timer(seconds, close)
    timer.daemon = True
    timer.start()
    try:
        yield
    except Exception as e:
        if not expired.is_set():
            raise
        raise _unreached(machine, TimeoutError()) from e
    finally:
        timer.cancel()


def run(
    machine: Machine,
    argv: Sequence[str],
    *,
    timeout_seconds: float,
    on_line: Callable[[str], None] | None = None,
    check: bool = True,
    user: str = "root",
) -> Finished:
    """Runs a program on a machine and returns what it printed.

    Args:
        machine: where; its host key must be in its known_hosts file.
        argv: the program and its arguments, quoted here for the remote shell.
        timeout_seconds: wall time after which the connection is closed.
        on_line: gets each line of the standard output as it comes.
        check: raise when the program ends with a non-zero status.
        user: who runs it, where the machine has sudo.

    Raises:
        CommandFailed: the machine cannot be reached or trusted, the time ran out,
            or `check` and the status was not 0.
    """
    from invoke.exceptions import CommandTimedOut

    started = time.monotonic()
    command = shlex.join(argv)
    words, answer = _as_user(machine, argv, user)
    too_much = CommandFailed(
        f"run {command} on {machine.name}",
        found=f"it printed more than {_MOST_LETTERS >> 20} MiB",
        fix="Run it there by hand: a program that says so much was put in its place, or has a fault.",
    )
    with (
        connected(machine) as connection,
        _watched(connection, machine, timeout_seconds + _AUTHENTICATION_SECONDS),
    ):
        try:
            result = connection.run(
                marked(words),
                hide=True,
                warn=True,
                in_stream=StringIO(answer) if answer else False,
                timeout=timeout_seconds,
                out_stream=_Heard(on_line, too_much),
                err_stream=_Heard(None, too_much),
            )
        except CommandTimedOut as e:
            raise _failed(machine, command, found=f"it still ran after {timeout_seconds:.0f} s") from e
        _refuse_lost(connection, machine, command, result.exited)
    printed = after_mark(result.stdout)
    if printed is None and result.exited == 0:
        raise _not_run(machine, command)
    if machine.sudo:
        refuse(machine.name, machine.sudo, result.exited, result.stderr)
    stdout = result.stdout if printed is None else printed
    if check and result.exited != 0:
        last_lines = "\n".join((result.stderr or stdout).strip().splitlines()[-20:])
        raise _failed(machine, command, found=f"it ended with status {result.exited}\n{last_lines}")
    return Finished(
        argv=tuple(argv),
        returncode=result.exited,
        stdout=stdout,
        stderr=result.stderr,
        seconds=time.monotonic() - started,
    )


def download(
    machine: Machine, argv: Sequence[str], *, timeout_seconds: float, accepted: Sequence[int] = (0,)
) -> Iterator[bytes]:
    """Runs a program on a machine and hands on its standard output, as bytes, while it comes.

    Args:
        timeout_seconds: the longest silence.
        accepted: the statuses that count as success.

    Raises:
        CommandFailed: the machine cannot be reached or trusted, falls silent, or the program fails.
    """
    command = shlex.join(argv)
    words, answer = _as_user(machine, argv, "root")
    with connected(machine) as connection:
        channel = connection.transport.open_session(window_size=_WINDOW_BYTES)
        channel.settimeout(timeout_seconds)
        channel.exec_command(marked(words))
        channel.sendall(answer.encode())
        try:
            has_begun = skip_greeting(channel.recv)
            while chunk := channel.recv(_CHUNK_BYTES):
                yield chunk
            said = b"".join(iter(lambda: channel.recv_stderr(_CHUNK_BYTES), b""))
        except TimeoutError as e:
            raise _failed(machine, command, found=f"it was silent for {timeout_seconds:.0f} s") from e
        with _watched(connection, machine, timeout_seconds):
            status = channel.recv_exit_status()
        _refuse_lost(connection, machine, command, status)
    if machine.sudo:
        refuse(machine.name, machine.sudo, status, said.decode(errors="replace"))
    if not has_begun and status in accepted:
        raise _not_run(machine, command)
    if status not in accepted:
        last_lines = "\n".join(said.decode(errors="replace").strip().splitlines()[-20:])
        raise _failed(machine, command, found=f"it ended with status {status}\n{last_lines}")


def put(machine: Machine, files: Sequence[Path], folder: PurePosixPath) -> None:
    """Copies files into a folder of a machine, which is made where it is missing.

    Raises:
        CommandFailed: the machine cannot be reached or trusted, or does not take a file.
    """
    with connected(machine) as connection:
        connection.run(shlex.join(["mkdir", "-p", str(folder)]), hide=True, in_stream=False, timeout=30)
        for path in files:
            connection.put(str(path), str(folder / path.name))


def _refuse_lost(connection: fabric.Connection, machine: Machine, command: str, status: int) -> None:
    """Without a status (-1) a signal ended the program, or the connection ended before it did."""
    if status == -1 and not connection.transport.is_active():
        raise CommandFailed(
            f"run {command} on {machine.name}",
            found="the connection ended before the program did",
            fix=f"Check that {machine.name} is up, then run the command again.",
        )


def _not_run(machine: Machine, command: str) -> CommandFailed:
    return CommandFailed(
        f"run {command} on {machine.name}",
        found=f"the login shell of {machine.user} ended before it ran that",
        fix="See what ~/.bashrc and the like do there where no person logs in. " + filled(machine, TRY),
    )


def _as_user(machine: Machine, argv: Sequence[str], user: str) -> tuple[Sequence[str], str]:
    """The words to run, and the text for their standard input: a password is in no list of processes."""
    if machine.sudo is None or machine.user == user:
        return argv, ""
    return as_user(argv, machine.sudo, user), f"{machine.sudo.password}\n" if machine.sudo.password else ""


def _failed(machine: Machine, command: str, *, found: str) -> CommandFailed:
    return CommandFailed(f"run {command} on {machine.name}", found=found, fix="Its output is above.")


_HUNG_UP = "it hung up: its sshd is overloaded or broken, or another program listens there"
_NO_ANSWER = "it took the connection and gave no answer"
_NO_SERVER = "no ssh server answers there"
_LOOK_AT_SSHD = "Look at `systemctl status ssh` on its console."
_LOOK_AT_MACHINE = "Check that it is up, and its address, port, cable and firewall."
_TRY_WAY = "Try the same with ssh: ansible NODE -m ping -vvv prints the whole command."
# The error's class or one that it derives from, words in it, what is found, what to do; the first row counts.
_ROWS = (
    ("IncompatiblePeer", "host key", "its host key is of no kind that {known} holds", COMPARE),
    ("AuthenticationException", "imeout", _NO_ANSWER, _LOOK_AT_SSHD),
    ("SSHException", "banner", f"{_NO_SERVER}: {{said}}", _LOOK_AT_SSHD),
    ("SSHException", "imeout", _NO_ANSWER, _LOOK_AT_SSHD),
    ("SSHException", "No existing session", _NO_ANSWER, _LOOK_AT_SSHD),
    ("gaierror", "", "its address {address} is not resolved", "Correct ansible_host in the inventory."),
    ("TimeoutError", "", "no answer in time", _LOOK_AT_MACHINE),
    (
        "ConnectionRefusedError",
        "",
        "nothing listens at port {number} there",
        f"{_LOOK_AT_MACHINE} {_LOOK_AT_SSHD}",
    ),
    ("ConnectionError", "", _HUNG_UP, _LOOK_AT_SSHD),
    ("EOFError", "", _HUNG_UP, _LOOK_AT_SSHD),
    ("OSError", "", "{said}", _LOOK_AT_MACHINE),
    ("BaseException", "", "{kind}: {said}", TRY),
)


def _unreached(machine: Machine, error: BaseException) -> CommandFailed:
    """The row of an error, filled in for its machine."""
    said = " ".join(str(error).split())
    kinds = {kind.__name__ for kind in type(error).__mro__}
    found, fix = next((found, fix) for kind, words, found, fix in _ROWS if kind in kinds and words in said)
    more = {"kind": type(error).__name__, "said": said or type(error).__name__}
    return CommandFailed(
        reach(machine), found=filled(machine, found, **more), fix=filled(machine, fix, **more)
    )
