"""Serves one folder over HTTP to the nodes of a lab, on the bridge's address only."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class _Handler(SimpleHTTPRequestHandler):
    """Keeps connections open between files, and keeps quiet: a conda install asks for hundreds of files."""

    protocol_version = "HTTP/1.1"
    timeout = 120.0  # seconds that a connection may be idle

    def copyfile(self, source: Any, outputfile: Any) -> None:
        """Lets the kernel copy (sendfile(2)): four nodes fetch hundreds of megabytes at once."""
        self.connection.sendfile(source)

    def log_message(self, format: str, *args: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def serve(*, address: str, port: int, served: Path) -> None:
    """Serves `served` for ever; it may not exist yet and may change (it is a link to the newest mirror)."""
    with _Server((address, port), partial(_Handler, directory=str(served))) as server:
        server.serve_forever()


def main(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description="Serves a folder to the nodes of a lab.")
    parser.add_argument(
        "--folder", type=Path, required=True, help="the lab's, by which the lab knows this process"
    )
    parser.add_argument("--served", type=Path, required=True)
    parser.add_argument("--address", required=True)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args(words)
    serve(address=options.address, port=options.port, served=options.served)


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
