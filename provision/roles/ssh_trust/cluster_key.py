"""The line that lets the cluster's key in: from the cluster's addresses, for what jobs need. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass

# Characters of an address, of the length of a network, and of sshd's patterns.
_SOURCE = re.compile(r"[0-9A-Fa-f.:*?]+(/[0-9]{1,3})?")
_FORMS = "Write each on its own, as 10.0.0.5, 10.0.0.0/24, 10.0.*, fd00::/64 or *; ! before one denies."


@dataclass(frozen=True, slots=True, kw_only=True)
class BadSource:
    """What is wrong with one of the addresses from which the key opens, and the fix."""

    found: str
    fix: str


def bad_source(source: str) -> BadSource | None:
    """None where sshd understands it. Where it does not, it refuses the key from everywhere (addrmatch.c)."""
    text = source.removeprefix("!")
    if not _SOURCE.fullmatch(text):
        found = "it is no address, network or pattern of them, and sshd asks no DNS for a name"
        return BadSource(found=found, fix=_FORMS)
    if "*" in text or "?" in text:
        return BadSource(found="a pattern has no length", fix=_FORMS) if "/" in text else None
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return BadSource(found="it is no address or network", fix=_FORMS)
    address, _, length = text.partition("/")
    if length and network.network_address != ipaddress.ip_address(address):
        found = "it names one machine and the length of its network"
        return BadSource(found=found, fix=f"Write {network}, or {address}.")
    return None


def authorised_line(public_key: str, sources: Sequence[str]) -> str:
    """A line of authorized_keys, by sshd(8): commands and a terminal, and nothing that is forwarded.

    Args:
        sources: addresses, or patterns of sshd's, from which the key opens; empty for any.
    """
    # Without a limit somebody logs in with it from elsewhere, and perhaps goes through one node to the next.
    limit = [f'from="{",".join(dict.fromkeys(sources))}"'] if sources else []
    options = [*limit, "restrict", "pty", *([] if sources else ["port-forwarding"])]
    return f"{','.join(options)} {public_key}" if public_key else ""
