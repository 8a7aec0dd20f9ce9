"""The host keys that known_hosts files hold for a machine, as OpenSSH reads them. Pure.

sshd(8), SSH_KNOWN_HOSTS FILE FORMAT: patterns with `*`, `?` and `!`, hashed names, and marks before a line.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Iterable

_REVOKED = "@revoked"


def trusted_keys(texts: Iterable[str], name: str) -> list[str]:
    """Each as `type base64`, but for those that a line revokes; an authority's key is no machine's.

    Args:
        name: as ssh looks it up: the address, `[address]:port`, or an alias.
    """
    trusted, revoked = [], set()
    for line in (line for text in texts for line in text.splitlines()):
        words = line.split()
        mark = words.pop(0) if words and words[0].startswith("@") else ""
        if len(words) < 3 or words[0].startswith("#") or not _is_of(words[0], name.lower()):
            continue
        if mark == _REVOKED:
            revoked.add(words[2])
        elif not mark:
            trusted.append(f"{words[1]} {words[2]}")
    return [key for key in dict.fromkeys(trusted) if key.split()[1] not in revoked]


def _is_of(names: str, name: str) -> bool:
    if names.startswith("|1|"):
        return _is_hash_of(names, name)
    patterns = names.lower().split(",")
    denied = (pattern[1:] for pattern in patterns if pattern.startswith("!"))
    return not any(_matches(pattern, name) for pattern in denied) and any(
        _matches(pattern, name) for pattern in patterns if not pattern.startswith("!")
    )


def _matches(pattern: str, name: str) -> bool:
    parts = (".*" if letter == "*" else "." if letter == "?" else re.escape(letter) for letter in pattern)
    return re.fullmatch("".join(parts), name) is not None


def _is_hash_of(names: str, name: str) -> bool:
    """|1|salt|HMAC-SHA1 of the name."""
    try:
        salt, digest = (base64.b64decode(part) for part in names.split("|")[2:])
    except ValueError:
        return False
    return hmac.digest(salt, name.encode(), "sha1") == digest
