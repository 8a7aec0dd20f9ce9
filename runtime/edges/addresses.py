"""Names, addresses and interfaces as this node sees them: the standard library only, no root."""

from __future__ import annotations

import errno
import fcntl
import ipaddress
import socket
import struct
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Annotated

from runtime.untrusted.conform import Only, between

_SIOCGIFADDR = 0x8915
_SIOCGIFNETMASK = 0x891B
_IPV6 = Path("/proc/net/if_inet6")
# Nodes that may ask at once; the kernel lowers it to net.core.somaxconn (listen(2)).
_BACKLOG = 4096
# Connections that are answered at once; nodes of one job ask each other at the same time.
_MOST_AT_ONCE, _PAUSE_SECONDS = 1024, 0.05
_MOST_LETTERS = 63  # an address with its zone stays below what a part of a name may have (RFC 1035)


def _is_interface(text: str) -> bool:
    try:
        ipaddress.ip_interface(text)
    except ValueError:
        return False
    return len(text) <= _MOST_LETTERS and text.isprintable()


def _is_address(text: str) -> bool:
    return "/" not in text and _is_interface(text)


# What a node says of itself is held against these.
Address = Annotated[str, Only("an IP address", _is_address)]
AddressOrNone = Annotated[str, Only("an IP address or nothing", lambda text: not text or _is_address(text))]
InterfaceOrNone = Annotated[
    str, Only("an address with its network or nothing", lambda text: not text or _is_interface(text))
]
Port = Annotated[int, between(1, 65535)]
PortOrNone = Annotated[int, between(0, 65535)]


def resolve(name: str) -> str:
    """The address that this machine has for a name, IPv4 before IPv6; empty when it knows none."""
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except OSError:
        return ""
    ordered = sorted(found, key=lambda entry: entry[0] != socket.AF_INET)
    return str(ordered[0][4][0]) if ordered else ""


def is_own(address: str) -> bool:
    """Whether this machine holds the address: it can bind a socket to it."""
    if not address:
        return False
    try:
        with socket.socket(family_of(address), socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def is_loopback(address: str) -> bool:
    """Whether the address leads back to the machine that uses it."""
    return bool(address) and ipaddress.ip_address(address).is_loopback


def source_towards(address: str) -> str:
    """The own address that packets to `address` leave from; empty when there is no route. Sends nothing."""
    try:
        with socket.socket(family_of(address), socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))
            return str(probe.getsockname()[0])
    except OSError:
        return ""


def interface_of(address: str) -> str:
    """The interface that holds an own address; empty when none does."""
    if not address:
        return ""
    if is_loopback(address):
        return "lo"
    if family_of(address) == socket.AF_INET6:
        own = ipaddress.ip_address(address)
        return next((name for name, held in _ipv6() if held.ip == own), "")
    names = (name for _, name in socket.if_nameindex())
    return next((name for name in names if _ask(name, _SIOCGIFADDR) == address), "")


def address_of(interface: str) -> str:
    """An interface's address with its prefix length, "10.0.0.1/24", IPv4 before IPv6; else empty."""
    address, mask = (_ask(interface, request) for request in (_SIOCGIFADDR, _SIOCGIFNETMASK))
    if address and mask:
        return str(ipaddress.ip_interface(f"{address}/{mask}"))
    held = (each for name, each in _ipv6() if name == interface and not each.is_link_local)
    return str(next(held, ""))


def _ipv6() -> list[tuple[str, ipaddress.IPv6Interface]]:
    """Each interface with an IPv6 address of it. Columns: address, index, length, scope, flags, name."""
    try:
        lines = [line.split() for line in _IPV6.read_text().splitlines()]
    except OSError:  # a kernel without IPv6
        return []
    return [
        (words[5], ipaddress.IPv6Interface((int(words[0], 16), int(words[2], 16))))
        for words in lines
        if len(words) == 6
    ]


def _ask(interface: str, request: int) -> str:
    """One of netdevice(7)'s questions that an address answers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            answer = fcntl.ioctl(probe, request, struct.pack("256s", interface.encode()[:15]))
        except OSError:
            return ""
    return socket.inet_ntoa(answer[20:24])


def listener(address: str, port: int) -> socket.socket | None:
    """A socket that listens there and on no other address, for port 0 on a free one; None for a taken one."""
    server = socket.socket(family_of(address), socket.SOCK_STREAM)
    try:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((address, port))
        server.listen(_BACKLOG)
    except OSError:
        server.close()
        return None
    return server


def unreached(address: str, port: int, timeout_seconds: float) -> str:
    """Why no connection comes about; empty where one does, which is closed at once."""
    try:
        socket.create_connection((address, port), timeout=timeout_seconds).close()
    except TimeoutError:
        return f"no answer within {timeout_seconds:g} s"
    except (OSError, ValueError, OverflowError) as e:  # what another node calls its address may be none
        return getattr(e, "strerror", None) or str(e)
    return ""


def family_of(address: str) -> socket.AddressFamily:
    """IPv6 for an address with a colon, else IPv4."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def in_url(address: str) -> str:
    """The address as it stands before a port: IPv6 in brackets (RFC 3986, 3.2.2)."""
    return f"[{address}]" if ":" in address else address


def receive(connection: socket.socket, count: int) -> bytes:
    """So many bytes, no fewer.

    Raises:
        OSError: the other side closed the connection, or they did not come in its time.
    """
    received = b""
    while len(received) < count:
        piece = connection.recv(count - len(received))
        if not piece:
            raise ConnectionResetError("the other side closed the connection")
        received += piece
    return received


def answer_each(
    server: socket.socket,
    answer: Callable[[socket.socket], None],
    *,
    senders: Collection[str] | None = None,
    most: int = _MOST_AT_ONCE,
) -> None:
    """Answers connections in threads until the socket is closed, no more than so many at once.

    Whoever connects costs no more than that: one too many is closed, and a machine that has no descriptor or
    no thread left goes on when it has.

    Args:
        senders: the only addresses that are answered; None for all.
    """
    room = threading.Semaphore(most)

    def answered(connection: socket.socket) -> None:
        try:
            answer(connection)
        finally:
            room.release()

    while True:
        try:
            connection, sender = server.accept()
        except OSError as e:
            if server.fileno() < 0 or e.errno == errno.EINVAL:  # closed, or shut down
                return
            time.sleep(_PAUSE_SECONDS)
            continue
        if (senders is not None and sender[0] not in senders) or not room.acquire(blocking=False):
            connection.close()
            continue
        try:
            threading.Thread(target=answered, args=(connection,), daemon=True).start()
        except RuntimeError:
            room.release()
            connection.close()
