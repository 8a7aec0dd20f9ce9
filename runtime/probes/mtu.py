"""Which packets pass whole: an interface's MTU, and a path's with the do-not-fragment bit; no root."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from hmac import compare_digest
from pathlib import Path

from runtime.edges.addresses import family_of, interface_of

# linux/in.h and linux/in6.h: IP_MTU_DISCOVER, IPV6_MTU_DISCOVER and the value that forbids fragments and
# ignores what the kernel remembers of the path.
_DISCOVER = {socket.AF_INET: (socket.IPPROTO_IP, 10), socket.AF_INET6: (socket.IPPROTO_IPV6, 23)}
_PROBE = 3
# IP and UDP headers.
_HEADERS = {socket.AF_INET: 28, socket.AF_INET6: 48}
# Sizes that switches, tunnels and clouds use.
_LADDER = (576, 1280, 1400, 1450, 1460, 1500, 4200, 8900, 9000)
_TRIES = 2
# The first byte of a packet. Two targets that answered each other's answers would never end.
_REQUEST, _ANSWER = b"?", b"!"
_WAIT_SECONDS = 0.1
# What a lossy way swallowed by chance comes through at last; of a hole it never does.
_CONFIRMATIONS = 4
# Of packets that are no answer, such as late ones to smaller requests: who sends them for ever holds nobody.
_MOST_HEARD = 64


def interface_mtu(interface: str) -> int:
    """Bytes of the largest packet that an interface sends; 0 where there is no such interface."""
    try:
        return int(Path(f"/sys/class/net/{interface}/mtu").read_text())
    except (OSError, ValueError):
        return 0


def is_request(packet: bytes, token: bytes) -> bool:
    """Whether a packet asks for an answer, and knows the run's token."""
    return packet[:1] == _REQUEST and compare_digest(packet[1 : 1 + len(token)], token)


def answer_to(packet: bytes) -> bytes:
    """What goes back: shorter than any request, and none itself."""
    return _ANSWER + struct.pack("!I", len(packet))


def path_mtu(own_address: str, where: tuple[str, int], token: bytes) -> int:
    """The largest packet, up to the own interface's MTU, that a `stream.Target` receives; 0 for none."""
    own = interface_mtu(interface_of(own_address)) or 1500
    largest = min(own, (1 << 16) - 1)
    with socket.socket(family_of(own_address), socket.SOCK_DGRAM) as probe:
        level, option = _DISCOVER[probe.family]
        probe.setsockopt(level, option, _PROBE)
        probe.bind((own_address, 0))
        probe.connect(where)
        headers = _HEADERS[probe.family]
        return largest_passing(largest, lambda size: _passes(probe, size - headers, token))


def largest_passing(largest: int, passes: Callable[[int], bool]) -> int:
    """The largest size of the ladder, or `largest` itself, that passes; 0 where none does."""
    if passes(largest):
        return largest
    smaller = [size for size in _LADDER if size < largest]
    if not smaller or not passes(smaller[0]):
        return 0
    good, bad = 0, len(smaller)
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if passes(smaller[middle]) else (good, middle)
    return largest if any(passes(largest) for _ in range(_CONFIRMATIONS)) else smaller[good]


def _passes(probe: socket.socket, payload: int, token: bytes) -> bool:
    probe.settimeout(_WAIT_SECONDS)
    request = (_REQUEST + token).ljust(payload, b"\0")
    for _ in range(_TRIES):
        try:
            probe.send(request)
            heard = (probe.recv(len(request)) for _ in range(_MOST_HEARD))
            if answer_to(request) not in heard:
                return False
        except TimeoutError:
            continue
        except OSError:
            return False
        return True
    return False
