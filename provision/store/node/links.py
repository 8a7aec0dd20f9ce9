"""A connection between two holders of a tree: one asks, one has. Nothing of the other end is believed.

Both send a nonce; with the key of this delivery and the tree's digest these make the connection's own key.
Each frame has a head that is signed with it (BLAKE2, RFC 7693), its direction and its number: none can be
added, left out, sent twice or brought from another connection. A chunk's bytes are not signed, since the
manifest says what they have to be.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import struct
import zlib
from typing import Callable, NamedTuple

from provision.store.node.manifest import CHUNK_BYTES, MOST_TEXT_BYTES

ASKS, HAS = b"A", b"H"
WANT, MANIFEST, CHUNK, WAIT, END, FAULT = range(1, 7)
MOST_CHUNKS = 1 << 20
MOST_PACKED_BYTES = MOST_TEXT_BYTES + (1 << 20)
_MAGIC = b"CWS1"
_HELLO = struct.Struct("!4scB32s")
_HEAD = struct.Struct("!BII")
_SIGNATURE_BYTES = 16
_PIECE_BYTES = 1 << 20
PACED_BYTES = 1 << 16
_MOST = {WANT: MOST_CHUNKS // 8, MANIFEST: _PIECE_BYTES, CHUNK: CHUNK_BYTES, WAIT: 0, END: 0, FAULT: 1024}

Read = Callable[[int], bytes]
Write = Callable[[bytes], object]
Pace = Callable[[int], object]


class LinkError(OSError):
    """The connection ended, or the other end broke the rules."""


class Frame(NamedTuple):
    kind: int
    number: int
    data: bytes


class Hello(NamedTuple):
    """How a connection begins: whether its first end asks or has, for which part of the chunks."""

    role: bytes
    lane: int
    nonce: bytes


class Link:
    """Frames in both directions. `read` returns what there is, up to so many bytes; b"" is the end."""

    def __init__(self, read: Read, write: Write) -> None:
        self._read, self._write = read, write
        self.on_bytes: Callable[[], object] = bool  # called whenever something came
        self._key = b""
        self._sent = self._got = 0
        self._directions = (b"", b"")

    def call(self, key: bytes, digest: str, *, role: bytes, lane: int = 0) -> None:
        """Begins a connection as the one who opened it."""
        mine = os.urandom(32)
        self._write(_HELLO.pack(_MAGIC, role, lane, mine))
        theirs = self._hello()
        if theirs.role != (HAS if role == ASKS else ASKS):
            raise LinkError("the other end plays the same part")
        self._agree(key, digest, mine, theirs.nonce, (b">", b"<"))

    def answer(self, key: bytes, digest: str) -> Hello:
        """Begins a connection as the one who was called; who called is proven with its first frame."""
        theirs = self._hello()
        mine = os.urandom(32)
        self._write(_HELLO.pack(_MAGIC, HAS if theirs.role == ASKS else ASKS, theirs.lane, mine))
        self._agree(key, digest, theirs.nonce, mine, (b"<", b">"))
        return theirs

    def _hello(self) -> Hello:
        magic, role, lane, nonce = _HELLO.unpack(self._exactly(_HELLO.size))
        if magic != _MAGIC or role not in (ASKS, HAS):
            raise LinkError("the other end speaks another language")
        return Hello(role, lane, nonce)

    def _agree(self, key: bytes, digest: str, first: bytes, second: bytes, ways: tuple[bytes, bytes]) -> None:
        agreed = hashlib.blake2b(key=key, digest_size=32, person=b"clusterwright")
        for part in (bytes.fromhex(digest), first, second):
            agreed.update(part)
        self._key, self._directions = agreed.digest(), ways

    def send(self, kind: int, number: int = 0, data: bytes = b"", pace: Pace | None = None) -> None:
        """A frame; `pace` is called before each piece of its data with the piece's size."""
        head = _HEAD.pack(kind, len(data), number)
        signature = self._sign(self._directions[0], self._sent, head, kind, data)
        self._sent += 1
        self._write(head + signature)
        if pace is None:
            if data:
                self._write(data)
            return
        for at in range(0, len(data), PACED_BYTES):
            piece = data[at : at + PACED_BYTES]
            pace(len(piece))
            self._write(piece)

    def receive(self) -> Frame:
        """The next frame.

        Raises:
            LinkError: the connection ended, or it is not signed, too large, or of no kind.
        """
        head = self._exactly(_HEAD.size)
        signature = self._exactly(_SIGNATURE_BYTES)
        kind, size, number = _HEAD.unpack(head)
        if size > _MOST.get(kind, -1):
            raise LinkError("the other end sends what was not agreed")
        if kind == CHUNK:  # before its bytes are waited for
            self._refuse_forged(signature, head, kind, b"")
        data = self._exactly(size)
        if kind != CHUNK:
            self._refuse_forged(signature, head, kind, data)
        self._got += 1
        return Frame(kind, number, data)

    def _refuse_forged(self, signature: bytes, head: bytes, kind: int, data: bytes) -> None:
        if not hmac.compare_digest(signature, self._sign(self._directions[1], self._got, head, kind, data)):
            raise LinkError("the other end does not have the key of this delivery")

    def _sign(self, direction: bytes, count: int, head: bytes, kind: int, data: bytes) -> bytes:
        signed = hashlib.blake2b(key=self._key, digest_size=_SIGNATURE_BYTES)
        signed.update(direction + count.to_bytes(8, "big") + head)
        if kind != CHUNK:
            signed.update(data)
        return signed.digest()

    def _exactly(self, size: int) -> bytes:
        pieces = []
        while size:
            piece = self._read(min(size, 1 << 20))
            if not piece:
                raise LinkError("the connection ended")
            self.on_bytes()
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)


def send_text(link: Link, text: bytes) -> None:
    """A manifest's text, packed, in pieces; each says how many follow."""
    packed = zlib.compress(text, 6)
    pieces = [packed[at : at + _PIECE_BYTES] for at in range(0, len(packed), _PIECE_BYTES)]
    for number, piece in enumerate(pieces, start=1):
        link.send(MANIFEST, len(pieces) - number, piece)


def unpacked(packed: bytes) -> bytes:
    """Raises:
    LinkError: it is nothing packed, or more than a manifest may have.
    """
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(packed, MOST_TEXT_BYTES + 1)
    except zlib.error as e:
        raise LinkError("the other end sends no manifest") from e
    if len(text) > MOST_TEXT_BYTES or not unpacker.eof:
        raise LinkError("the other end sends no manifest, or too long a one")
    return text


def bits_of(numbers: list[int], count: int) -> bytes:
    """Which of so many chunks, a bit each."""
    bits = bytearray(-(-count // 8))
    for number in numbers:
        bits[number >> 3] |= 1 << (number & 7)
    return bytes(bits)


def numbers_in(bits: bytes, count: int) -> list[int]:
    """Raises:
    LinkError: they are of another number of chunks.
    """
    if len(bits) != -(-count // 8):
        raise LinkError("the other end asks for another tree's chunks")
    return [number for number in range(count) if bits[number >> 3] >> (number & 7) & 1]
