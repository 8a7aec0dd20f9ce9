"""A program on another machine, spoken to while it runs: bytes in both directions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from provision.edges.ssh import connected
from provision.edges.ssh_begin import marked, skip_greeting
from provision.model import Machine
from provision.privilege import as_root_with_input, refuse

_MOST_SAID = 1 << 16
_WINDOW_BYTES = 16 << 20


class Channel:
    """The program's standard input and output. `close` from another thread ends what waits in it."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel

    def write(self, data: bytes) -> None:
        self._channel.sendall(data)

    def read(self, size: int) -> bytes:
        """What there is, up to so many bytes; b"" once the program has ended or the connection is gone.

        Raises:
            TimeoutError: nothing came for the time that `silence` says.
        """
        data: bytes = self._channel.recv(size)
        return data

    def silence(self, seconds: float | None) -> None:
        """How long `read` and `write` wait."""
        self._channel.settimeout(seconds)

    def said(self) -> str:
        """What the program has said on its standard error, once it has ended."""
        pieces, size = [], 0
        while size < _MOST_SAID and self._channel.recv_stderr_ready():
            pieces.append(self._channel.recv_stderr(_MOST_SAID))
            size += len(pieces[-1])
        return b"".join(pieces).decode(errors="replace")

    def close(self) -> None:
        self._channel.close()


@contextmanager
def opened(machine: Machine, argv: Sequence[str]) -> Iterator[Channel]:
    """Runs a program as root on a machine, until the block ends.

    Raises:
        CommandFailed: the machine cannot be reached or trusted, or sudo refuses.
    """
    words, first = as_root_with_input(argv, machine.sudo)
    with connected(machine) as connection:
        inner = connection.transport.open_session(window_size=_WINDOW_BYTES)
        inner.exec_command(marked(words))
        channel = Channel(inner)
        channel.write(first.encode())
        skip_greeting(inner.recv)
        try:
            yield channel
            if machine.sudo and inner.exit_status_ready():
                refuse(machine.name, machine.sudo, inner.recv_exit_status(), channel.said())
        finally:
            inner.close()
