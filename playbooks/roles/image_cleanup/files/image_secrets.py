"""What of an image's files looks like a secret.

A part of image_tree.py, which is sent to a node as one text with it. Standard library only.
"""

from __future__ import annotations

import glob
import math
import os
import re
from collections.abc import Mapping
from typing import Any

from image_walk import SWAP_OF_VIM, is_binary, read, unpacked

ASSIGNED = re.compile(
    rb"(?i:token|passw(?:or)?d|passphrase|secret|api[_-]?key|access[_-]?key|private[_-]?key|license[_-]?key|_auth"
    rb"|credential|psk|pwd"
    rb"|(?:storage|remote|smtp|imap|mail|db|mysql|redis|ftp|http|proxy)_?pass(?=[\"' \t]{0,3}[=:]))"
    rb"[\w.-]{0,80}[\"']?[ \t]{0,3}(?:=>?|:)[ \t]{0,3}[\"']?([^\s\"'<>(){}\[\],;$%\\*]+)"
)
# What stands there in nsswitch.conf, ldap.conf and below pam.d.
NO_PASSWORD = (
    rb"files|md5|crypt|clear\w*|exop\w*|ssha|ad|nds|racf"
    rb"|required|requisite|sufficient|optional|include|substack"
)
# The same in the files of services that separate by a blank.
SAID = re.compile(
    rb"(?im)^[ \t]*(?:[\w.-]{0,40}[_.-])?(?:passw(?:or)?d|passphrase|secret|auth_pass|psk|k_[gr])"
    rb"[ \t]+[\"']?(?!(?:%s)\b)[^\s\"'#;]+" % NO_PASSWORD
)
# No two ways to read one name: who chooses it chooses how long this takes.
COPY = re.compile(
    r"(?is)^#?(.+?)(?:#|~|[._ -]~?(?:bak|backup|old|orig|sav|saved?|copy|sw[nop]|tmp|[0-9]{1,8}))+$"
)
# Among bytes: a program that writes keys holds the line that they begin with, too, but not what follows it.
ARMOUR = re.compile(
    rb"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----(?:\r?\n|\\n)[\r\n]*[A-Za-z0-9+/]{4}"
)
# PKCS#8, PKCS#1, SEC1 and PKCS#12 as DER: a sequence that begins with the version.
DER = re.compile(
    rb"(?s)\x30(?:\x82..|\x81.|[\x10-\x7f])"
    rb"\x02\x01(?:\x00(?:\x30|\x02[\x81\x82])|\x01\x04[\x20\x30\x42]|\x03\x30)"
)
# Of secrets.yml: kind, texts of which one must be there, pattern.
CONTENTS: list[tuple[str, list[bytes], re.Pattern[bytes]]] = []
AMONG_BYTES: list[tuple[str, list[bytes], re.Pattern[bytes]]] = []  # in databases, pickles, records of runs


def take_in_contents(table: list[Mapping[str, Any]]) -> None:
    for one in table:
        for said in one["patterns"]:
            signs = [sign.encode() for sign in said["signs"]]
            CONTENTS.append((one["kind"], signs, re.compile(said["pattern"].encode())))
            if said.get("among_bytes"):  # where the byte before it, a length, may be a letter
                pattern = re.sub(r"^\\b", "", said["pattern"]).encode()
                AMONG_BYTES.append((one["kind"], signs, re.compile(pattern)))


def a_setting(text: str) -> str:
    content = text.encode("utf-8", "replace")
    said = ASSIGNED.search(content) or SAID.search(content)
    return "it gives a password or a token its value" if said else ""


def stated(text: str) -> str:
    lines = [line.strip() for line in text.splitlines()]
    return "it is not empty" if any(line and not line.startswith("#") for line in lines) else ""


def copied_of(path: str) -> list[str]:
    """The paths of which this one's name says that it is a copy: `.netrc` for `.netrc~` and `.netrc.bak`."""
    folder, name = os.path.split(path)
    match = COPY.match(name) or re.match(r"(?s)^\.?#(.+)$", name)
    if not match or "/man/" in path:  # netrc.5 is a page of the manual
        return []
    names = [match[1], match[1][1:]] if re.search(r"\.sw[nop]$", name) and match[1][1:] else [match[1]]
    return [os.path.join(folder, one) for one in names]


def key_places(root: str) -> list[str]:
    """Patterns of the paths where sshd looks for authorised keys, as its configuration says."""
    folder = os.path.join(root, "etc/ssh")
    found: list[str] = []
    more = sorted(glob.glob(os.path.join(glob.escape(folder), "sshd_config.d/*.conf")))
    for place in [os.path.join(folder, "sshd_config"), *more]:
        text = read(place).decode("utf-8", "replace")
        for match in re.finditer(r"(?im)^[ \t]*AuthorizedKeysFile(?:[ \t]*=[ \t]*|[ \t]+)(.+)$", text):
            found += [one.strip("\"'") for one in match[1].partition("#")[0].split()]
    return [key_place(one) for one in found if one and one != "none"]


def key_place(path: str) -> str:
    path = path[3:] if path.startswith("%h/") else path
    parts = {"%u": "[^/]+", "%U": "[0-9]+", "%h": ".*", "%%": "%"}
    pattern = "".join(parts.get(part, re.escape(part)) for part in re.split("(%[uUh%])", path.lstrip("/")))
    return pattern if path.startswith("/") else "(.*/)?" + pattern


def public_keys(text: str) -> str:
    return "it lets keys in" if re.search(r"(?m)^(?!#).*\b(ssh-|ecdsa-|sk-)[a-z0-9-]+", text) else ""


def content_findings(content: bytes) -> list[tuple[str, str]]:
    """Kind of secret and what is said of it, which never is the secret itself."""
    packed = [(kind, "compressed: " + said) for kind, said in findings_in(unpacked(content))]
    return packed or findings_in(content)


def findings_in(content: bytes) -> list[tuple[str, str]]:
    if is_binary(content[:8192]):
        return binary_findings(content)
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        content = content.decode("utf-16", "replace").encode("utf-8", "replace")
    if content.startswith(SWAP_OF_VIM):
        content = content.replace(b"\0", b"\n")
    found = {}
    for kind, signs, pattern in CONTENTS:
        if kind in found or not any(sign in content for sign in signs):
            continue
        match = next((one for one in pattern.finditer(content) if may_be_one(one)), None)
        if match:
            found[kind] = match
    assigned = next((match for match in ASSIGNED.finditer(content) if is_random(match[1])), None)
    if assigned:
        found["set-secret"] = assigned
    if key := DER.match(content):
        found["private-key"] = key
    return [(kind, f"line {line_of(content, match)} holds one") for kind, match in found.items()]


def binary_findings(content: bytes) -> list[tuple[str, str]]:
    if content[:4] == b"\x7fELF" and content[16:18] == b"\x04\0":  # ET_CORE, elf(5)
        return [("core-dump", "it is the memory of a process")]
    if content[4086:4096] in (b"SWAPSPACE2", b"SWAP-SPACE", b"S1SUSPEND\0"):
        return [("swap", "it is memory that was swapped out; swapoff it and leave it out of /etc/fstab")]
    if DER.match(content) or ARMOUR.search(content):
        return [("private-key", "it holds one among its bytes")]
    found = {
        kind
        for kind, signs, pattern in AMONG_BYTES
        if any(sign in content for sign in signs) and pattern.search(content)
    }
    return [(kind, "it holds one among its bytes") for kind in sorted(found)]


def line_of(content: bytes, match: re.Match[bytes]) -> int:
    return content.count(b"\n", 0, match.start()) + 1


def may_be_one(match: re.Match[bytes]) -> bool:
    value = match.groupdict().get("random")
    return value is None or is_random(value)


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
