"""Serves files over HTTP, read only: a folder to a lab's nodes, or of a bundle what its manifest names."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedReader
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from provision.bundle.contents import MANIFEST, File
from provision.bundle.folder import Bundle
from provision.edges.fetch import sha256_of_open
from provision.store.node.tree import Tree

_PAGE = "index.html"


class FolderHandler(SimpleHTTPRequestHandler):
    """Keeps connections open between files, and keeps quiet: a conda install asks for hundreds of files."""

    protocol_version = "HTTP/1.1"
    timeout = 120.0  # seconds that a connection may be idle

    def copyfile(self, source: Any, outputfile: Any) -> None:
        """Lets the kernel copy (sendfile(2)): four nodes fetch hundreds of megabytes at once."""
        self.connection.sendfile(source)

    def log_message(self, format: str, *args: object) -> None:
        pass


class Catalogue:
    """Opens files of a bundle by the path of an address; each is proven before it is sent the first time.

    Addresses begin with the bundle's digest: who was told one is served that bundle or nothing.
    """

    def __init__(self, bundle: Bundle, on_refusal: Callable[[str], None]) -> None:
        self._folder = bundle.folder
        self._digest = bundle.digest
        self._files = {file.path: file for file in bundle.contents.files}
        self._proven: dict[str, tuple[int, ...]] = {}
        self._lock = threading.Lock()
        self._on_refusal = on_refusal

    def open(self, address: str) -> tuple[BufferedReader, int] | None:
        """The file of an address (its path, quoted) and its bytes; None where the manifest has none such.

        Raises:
            OSError: what lies there is not what the manifest says.
        """
        path = unquote(urlsplit(address).path, errors="surrogateescape")
        first, _, rest = path.removeprefix("/").partition("/")
        if first != self._digest:
            return None
        rest = "/".join(part for part in rest.split("/") if part != ".")  # apt asks for ./Release
        name = f"{rest}{_PAGE}" if rest.endswith("/") else rest
        known = self._files.get(name)
        if known is None and name != MANIFEST:
            return None
        try:
            with Tree(str(self._folder)) as tree:
                stream = os.fdopen(tree.open(name), "rb")
            try:
                return stream, self._prove(stream, name, known)
            except BaseException:
                stream.close()
                raise
        except OSError as e:
            self._on_refusal(f"{name} is not sent: {e.strerror or e}")
            raise

    def _prove(self, stream: BufferedReader, name: str, known: File | None) -> int:
        """The bytes of an open file that is what it has to be; one that was touched since is read again."""
        before = _state(stream)
        with self._lock:
            is_proven = self._proven.get(name) == before
        if not is_proven:
            wanted = known.sha256 if known else self._digest
            if sha256_of_open(stream) != wanted or _state(stream) != before:
                raise OSError(f"{name} is not what the manifest says")
            stream.seek(0)
            with self._lock:
                self._proven[name] = before
        return before[0]


def _state(stream: BufferedReader) -> tuple[int, ...]:
    status = os.fstat(stream.fileno())
    return (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_dev, status.st_ino)


class BundleHandler(FolderHandler):
    """Answers GET and HEAD for what a catalogue has; there are no listings, and nothing is written."""

    def __init__(self, *args: Any, catalogue: Catalogue, **others: Any) -> None:
        self._catalogue = catalogue
        super().__init__(*args, **others)

    def send_head(self) -> Any:
        """The open file that `copyfile` sends, once its headers are out; None where there is none."""
        try:
            found = self._catalogue.open(self.path)
        except (OSError, ValueError):
            self.send_error(HTTPStatus.INTERNAL_SERVER_ERROR, "not what the manifest says")
            return None
        if found is None:
            self.send_error(HTTPStatus.NOT_FOUND, "not in the manifest")
            return None
        stream, size = found
        self.send_response(HTTPStatus.OK)
        is_page = urlsplit(self.path).path.endswith(("/", ".html"))
        self.send_header("Content-Type", "text/html" if is_page else "application/octet-stream")
        self.send_header("Content-Length", str(size))
        self.end_headers()
        return stream


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


class Server6(Server):
    address_family = socket.AF_INET6


def serve_folder(*, address: str, port: int, served: Path) -> None:
    """Serves `served` for ever; it may not exist yet and may change (it is a link to the newest mirror)."""
    with Server((address, port), partial(FolderHandler, directory=str(served))) as server:
        server.serve_forever()


def bundle_server(
    bundle: Bundle, *, address: str, port: int, on_refusal: Callable[[str], None] = lambda _: None
) -> Server:
    """A server of a bundle that listens; `serve_forever` answers.

    Args:
        address: of this machine; an IPv6 one, too.
        on_refusal: gets a line for each answer that a file is not what the manifest says.

    Raises:
        OSError: nothing can listen there.
    """
    catalogue = Catalogue(bundle, on_refusal)
    kind = Server6 if ":" in address else Server
    return kind((address, port), partial(BundleHandler, catalogue=catalogue))
