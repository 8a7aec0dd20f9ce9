"""The line that lets the cluster's key in: from the cluster's addresses, for what jobs need. Pure."""

from __future__ import annotations

from collections.abc import Sequence


def authorised_line(public_key: str, sources: Sequence[str]) -> str:
    """A line of authorized_keys, by sshd(8): commands and a terminal, and nothing that is forwarded.

    Args:
        sources: addresses, or patterns of sshd's, from which the key opens; empty for any.
    """
    # Without a limit somebody logs in with it from elsewhere, and perhaps goes through one node to the next.
    limit = [f'from="{",".join(dict.fromkeys(sources))}"'] if sources else []
    options = [*limit, "restrict", "pty", *([] if sources else ["port-forwarding"])]
    return f"{','.join(options)} {public_key}" if public_key else ""
