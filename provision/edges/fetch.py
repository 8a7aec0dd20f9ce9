"""Fetches a file from an address, and keeps it only when it is the right one."""

from __future__ import annotations

import hashlib
import http.client
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BufferedReader
from pathlib import Path

from provision.errors import CommandFailed


def sha256_of(path: Path) -> str:
    """The sha256 of a file, in hexadecimal digits."""
    with path.open("rb") as stream:
        return sha256_of_open(stream)


def sha256_of_open(stream: BufferedReader) -> str:
    """The sha256 of an open file from where it stands to its end, in hexadecimal digits."""
    return hashlib.file_digest(stream, "sha256").hexdigest()


_PIECE_BYTES = 1 << 20


def fetch(
    address: str,
    target: Path,
    *,
    sha256: str,
    timeout_seconds: float,
    on_bytes: Callable[[int], None] = lambda _: None,
) -> None:
    """Fetches `address` (http, https, file) to `target`, unless the right file lies there already.

    Args:
        on_bytes: gets how many came, again and again.

    Raises:
        CommandFailed: it cannot be fetched, or what came has another sha256; `target` is then untouched.
    """
    if target.is_file() and sha256_of(target) == sha256:
        return
    partial = target.with_name(f"{target.name}.partial")
    try:
        with urllib.request.urlopen(address, timeout=timeout_seconds) as source, partial.open("wb") as sink:
            while piece := source.read(_PIECE_BYTES):
                sink.write(piece)
                on_bytes(len(piece))
    except (OSError, ValueError, http.client.HTTPException) as e:
        partial.unlink(missing_ok=True)
        raise CommandFailed(
            f"fetch {address}", found=str(getattr(e, "reason", e)), fix="Check the address and the network."
        ) from e
    found = sha256_of(partial)
    if found != sha256:
        partial.unlink()
        raise CommandFailed(
            f"fetch {address}",
            found=f"it has sha256 {found}, not {sha256}",
            fix="Another version, or a damaged one: compare with where it is published.",
        )
    partial.rename(target)


_AT_ONCE = 8


def unreachable(addresses: Sequence[str], *, timeout_seconds: float, proxy: str = "") -> dict[str, str]:
    """The addresses (http, https, file) that do not answer, each with the reason, asked in parallel.

    Args:
        proxy: URL of the proxy that is asked for them; empty asks as this process's environment says.
    """
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        reasons = pool.map(lambda address: _why_not(address, timeout_seconds, proxy), addresses)
    return {address: reason for address, reason in zip(addresses, reasons, strict=True) if reason}


def _why_not(address: str, timeout_seconds: float, proxy: str) -> str:
    request = urllib.request.Request(address, method="HEAD")
    try:
        opener = urllib.request.build_opener(*_handlers(proxy))
        opener.open(request, timeout=timeout_seconds).close()
    except urllib.error.HTTPError as e:
        return f"it answers {e.code} {e.reason}"
    except (OSError, ValueError, http.client.HTTPException) as e:
        return str(getattr(e, "reason", e))
    return ""


def sizes(addresses: Sequence[str], *, timeout_seconds: float) -> dict[str, int | None]:
    """The bytes that lie at addresses (http, https, file), asked in parallel; None where nobody says."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = pool.map(lambda address: _size(address, timeout_seconds), addresses)
    return dict(zip(addresses, found, strict=True))


def _size(address: str, timeout_seconds: float) -> int | None:
    try:
        request = urllib.request.Request(address, method="HEAD")
        with urllib.request.urlopen(request, timeout=timeout_seconds) as answer:
            return int(answer.headers["Content-Length"])
    except (OSError, ValueError, TypeError, http.client.HTTPException):
        return None


def _handlers(proxy: str) -> list[urllib.request.BaseHandler]:
    return [urllib.request.ProxyHandler({"http": proxy, "https": proxy})] if proxy else []
