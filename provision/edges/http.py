"""Asks addresses whether they answer; fetches nothing."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

_AT_ONCE = 8


def unreachable(addresses: Sequence[str], *, timeout_seconds: float) -> dict[str, str]:
    """The addresses (http, https, file) that do not answer, each with the reason, asked in parallel."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        reasons = pool.map(lambda address: _why_not(address, timeout_seconds), addresses)
    return {address: reason for address, reason in zip(addresses, reasons, strict=True) if reason}


def _why_not(address: str, timeout_seconds: float) -> str:
    request = urllib.request.Request(address, method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=timeout_seconds).close()
    except urllib.error.HTTPError as e:
        return f"it answers {e.code} {e.reason}"
    except (OSError, ValueError, http.client.HTTPException) as e:
        return str(getattr(e, "reason", e))
    return ""
