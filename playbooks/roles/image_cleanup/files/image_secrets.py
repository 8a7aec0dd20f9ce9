"""Reads files of an image's tree: which of them packages brought, and what of the others looks like a secret.

A part of image_tree.py, which is sent to a node as one text with it. Standard library only.
"""

from __future__ import annotations

import csv
import errno
import glob
import json
import math
import os
import re
import stat
from contextlib import suppress

# Of a larger file the beginning and the end are read, half of this each.
MOST_BYTES = 64 << 20
ASSIGNED = re.compile(
    rb"(?i:token|passw(?:or)?d|passphrase|secret|api[_-]?key|access[_-]?key|private[_-]?key|_auth|credential|psk|pwd)"
    rb"[\w.-]*[\"']?[ \t]{0,3}(?:=>?|:)[ \t]{0,3}[\"']?([^\s\"'<>(){}\[\],;$%\\*]+)"
)
CONTENTS: list = []  # of secrets.yml: kind, texts of which one must be there, pattern


def take_in_contents(table: list) -> None:
    for one in table:
        for said in one["patterns"]:
            signs = [sign.encode() for sign in said["signs"]]
            CONTENTS.append((one["kind"], signs, re.compile(said["pattern"].encode())))


def a_setting(text: str) -> str:
    return "it gives a password or a token its value" if ASSIGNED.search(text.encode()) else ""


class Claims:
    """Paths, in the table's words, that packages brought by their own records."""

    def __init__(self, root: str) -> None:
        self._paths: set = set()
        for record in glob.glob(os.path.join(glob.escape(root), "var/lib/dpkg/info/*.list")):
            for line in read(record).decode("utf-8", "replace").splitlines():
                path = line.strip("/")
                self._paths.add(path)
                if path.startswith(("bin/", "sbin/", "lib")):  # where / is merged into /usr
                    self._paths.add("usr/" + path)

    def __contains__(self, path: str) -> bool:
        return path in self._paths and not path.startswith(("etc/", "root/", "home/", "var/"))

    def look(self, folder: str, inside: str, folders: list, names: list) -> None:
        """Takes in the records that a folder holds of what lies in and below it."""
        if "conda-meta" in folders:
            for record in glob.glob(os.path.join(glob.escape(folder), "conda-meta", "*.json")):
                self._add(inside, json_of(record).get("files", []))
            self._add(inside, json_of(os.path.join(folder, ".clusterwright/record.json")).get("entries", []))
        if "info" in folders and os.path.exists(os.path.join(folder, "info/index.json")):
            self._add(
                inside, read(os.path.join(folder, "info/files")).decode("utf-8", "replace").splitlines()
            )
        for name in folders:
            if name.endswith(".dist-info"):
                rows = read(os.path.join(folder, name, "RECORD")).decode("utf-8", "replace").splitlines()
                self._add(inside, [row[0] for row in csv.reader(rows) if row])

    def _add(self, inside: str, names) -> None:
        self._paths.update(os.path.normpath(os.path.join(inside, name)) for name in names)


def json_of(path: str) -> dict:
    with suppress(ValueError):
        found = json.loads(read(path))
        if isinstance(found, dict):
            return found
    return {}


def read(place: str) -> bytes:
    """A regular file, of a large one its beginning and end; a link, a socket or what has gone is empty."""
    try:
        descriptor = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOENT, errno.ENXIO):
            return b""
        raise
    with os.fdopen(descriptor, "rb") as stream:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return b""
        start = stream.read(8192)
        if is_binary(start):
            return start
        rest = stream.read(MOST_BYTES // 2)
        if status.st_size > MOST_BYTES:
            stream.seek(-MOST_BYTES // 2, os.SEEK_END)
        return start + rest + stream.read(MOST_BYTES // 2)


def is_binary(start: bytes) -> bool:
    return b"\0" in start and not start.startswith((b"\xff\xfe", b"\xfe\xff"))


def content_findings(content: bytes) -> list:
    """Kind of secret and what is said of it, which never is the secret itself."""
    if is_binary(content[:8192]):
        return binary_findings(content)
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        content = content.decode("utf-16", "replace").encode()
    found = {}
    for kind, signs, pattern in CONTENTS:
        match = pattern.search(content) if any(sign in content for sign in signs) else None
        if match and kind not in found:
            found[kind] = match
    assigned = next((match for match in ASSIGNED.finditer(content) if is_random(match[1])), None)
    if assigned:
        found["set-secret"] = assigned
    return [(kind, f"line {line_of(content, match)} holds one") for kind, match in found.items()]


def binary_findings(content: bytes) -> list:
    if content[:4] == b"\x7fELF" and content[16:18] == b"\x04\0":  # ET_CORE, elf(5)
        return [("core-dump", "it is the memory of a process")]
    if content[4086:4096] in (b"SWAPSPACE2", b"SWAP-SPACE", b"S1SUSPEND\0"):
        return [("swap", "it is memory that was swapped out; swapoff it and leave it out of /etc/fstab")]
    return []


def line_of(content: bytes, match) -> int:
    return content.count(b"\n", 0, match.start()) + 1


def is_random(value: bytes) -> bool:
    """Whether a value looks like a password or a token, not like a name, a path or a word."""
    kinds = [re.search(kind, value) is not None for kind in (rb"[0-9]", rb"[a-z]", rb"[A-Z]")]
    mixed = (kinds[0] and (kinds[1] or kinds[2])) or (len(value) >= 16 and kinds[1] and kinds[2])
    return (
        len(value) >= 8
        and mixed
        and value[:1] not in b"/.~"
        and b"://" not in value
        and entropy(value) >= 2.5
    )


def entropy(value: bytes) -> float:
    """Bits a character (Shannon)."""
    shares = [value.count(one) / len(value) for one in set(value)]
    return -sum(share * math.log2(share) for share in shares)
