"""Whether a change of authorized_keys closes the line by which the caller's own key opens the node."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from ipaddress import ip_address, ip_network

from ansible.module_utils.node_files import bare, lines_in

# A key of anybody, and ours with its limits; other options are not judged: such a line counts as closed.
_LINE = re.compile(
    r'(?:(?:from="(?P<from>[^"]*)",)?restrict[\w,-]* )?[\w@.-]+ (?P<key>[A-Za-z0-9+/]+=*)(?: .*)?'
)


def closed(before: str, after: str, way: Mapping[str, str]) -> str:
    """Why a change of its text is refused; "" where it is not.

    way: `key` (SHA256:..., as ssh says it) that opened the node to the caller, and `address`, from where;
    or `unknown`, why that cannot be told; empty where no key does. `fix`: how the caller goes on.
    """
    was, left = (list(map(bare, lines_in(text))) for text in (before, after))
    lost = [line for line in was if line not in left]
    if "unknown" in way and lost:
        return (
            f"{len(lost)} of its lines would go, and whether you log in by one of them is not known: "
            f"{way['unknown']}. {way['fix']}"
        )
    if "key" not in way or not any(way["key"] in fingerprints(line) for line in lost):
        return ""
    if any(lets_in(line, way["key"], way["address"]) for line in left):
        return ""
    return (
        f"you log in with the key {way['key']} from {way['address']}, by a line that would go, and no other "
        f"line lets it in from there. {way['fix']}"
    )


def lets_in(line: str, key: str, address: str) -> bool:
    """Whether this line opens to a key from an address, as sshd(8) reads it."""
    found = _LINE.fullmatch(line)
    return (
        found is not None
        and key in fingerprints(found["key"])
        and (found["from"] is None or is_among(address, found["from"].split(",")))
    )


def is_among(address: str, patterns: list[str]) -> bool:
    """As PATTERNS of ssh_config(5): one that is denied with `!` counts most."""
    denied = [pattern[1:] for pattern in patterns if pattern.startswith("!")]
    return not any(_fits(address, one) for one in denied) and any(_fits(address, one) for one in patterns)


def _fits(address: str, pattern: str) -> bool:
    try:
        return ip_address(address) in ip_network(pattern)
    except ValueError:
        return fnmatchcase(address, pattern.replace("[", "[[]"))


def fingerprints(line: str) -> set[str]:
    """Of every word that can be a key, wherever it stands."""
    found = set()
    for word in line.split():
        try:
            blob = base64.b64decode(word, validate=True)
        except (binascii.Error, ValueError):
            continue
        found.add("SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("="))
    return found
