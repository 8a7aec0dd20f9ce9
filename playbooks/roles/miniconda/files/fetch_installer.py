"""Fetches a file through the environment's proxy, kept where it is the right one: ADDRESS PATH SHA256."""

import hashlib
import http.client
import os
import sys
import urllib.request

SECONDS = 60
CHUNK = 1 << 20


def main(address: str, path: str, sha256: str) -> int:
    """Prints why it is not there, without what the environment says of the proxy."""
    found = hashlib.sha256()
    try:
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(opened, "wb") as sink, urllib.request.urlopen(address, timeout=SECONDS) as source:
            while chunk := source.read(CHUNK):
                found.update(chunk)
                sink.write(chunk)
    except (OSError, ValueError, http.client.HTTPException) as e:
        sys.stderr.write(f"{address} cannot be fetched through the proxy: {e}\n")
        return 1
    if found.hexdigest() == sha256:
        return 0
    os.unlink(path)
    sys.stderr.write(f"the checksum of {address} is {found.hexdigest()}, not {sha256}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
