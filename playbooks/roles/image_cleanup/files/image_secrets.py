"""What of an image's files looks like a secret.

A part of image_tree.py, which is sent to a node as one text with it. Standard library only.
"""

from __future__ import annotations

import math
import re

from image_walk import is_binary

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
