"""One line of authorized_keys, read as sshd(8) reads it. Pure."""

from __future__ import annotations

import re

_KEY = re.compile(r"^((?:ssh|ecdsa|sk)-[\w@.-]+)[ \t]+([A-Za-z0-9+/]+=*)(?:[ \t]|$)")
# Options end at the first blank outside quotes; \" neither begins nor ends a quotation. Nothing is read again
# in another way (`++`, `*+`): whoever may write such a line decides how long it is.
_OPTIONS = re.compile(r'^(?:\\"|"(?:\\"|[^"])*+"|[^" \t])++[ \t]+')


def key_in(line: str) -> str:
    """The type and the key of a line; empty where sshd finds none.

    A key in the options or in the comment is none: `command="ssh-rsa A" ssh-rsa B C` holds B.
    """
    text = line.strip(" \t")
    found = _KEY.match(text)
    if found is None and (options := _OPTIONS.match(text)):
        found = _KEY.match(text[options.end() :])
    return f"{found[1]} {found[2]}" if found else ""
