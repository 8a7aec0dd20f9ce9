"""A hub on the loopback: the parts of its API that huggingface_hub asks for, and faults on demand."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "c" * 40
_LARGE = 1 << 20


@dataclass
class Hub:
    """A repository of one commit. `cut_after`: bytes of a file's answer, after which so many answers end."""

    files: dict[str, bytes]
    repository: str = "tiny/model"
    token: str = ""
    cut_after: int = 0
    cuts: int = 0
    spoilt: dict[str, bytes] = field(default_factory=dict)
    sent: int = 0
    asked: list[tuple[str, str]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    address: str = ""

    def listed(self) -> list[dict[str, Any]]:
        return [_listed(name, data) for name, data in sorted(self.files.items())]


def _listed(name: str, data: bytes) -> dict[str, Any]:
    blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    large = {"lfs": {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}}
    return {
        "type": "file",
        "path": name,
        "size": len(data),
        "oid": blob,
        **(large if len(data) >= _LARGE else {}),
    }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        hub, path = self.hub, unquote(urlsplit(self.path).path)
        hub.asked.append((path, self.headers.get("Authorization", "")))
        if hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}":
            self._json(401, {"error": "Invalid credentials"}, {"X-Error-Code": "RepoNotFound"}, with_body)
        elif found := re.fullmatch(f"/api/models/{hub.repository}(?:/revision/([^/]+))?", path):
            if found[1] not in (None, "main", COMMIT):
                self._json(404, {"error": "none"}, {"X-Error-Code": "RevisionNotFound"}, with_body)
                return
            self._json(200, {"id": hub.repository, "sha": COMMIT, "siblings": []}, {}, with_body)
        elif path == f"/api/models/{hub.repository}/tree/{COMMIT}":
            self._json(200, hub.listed(), {}, with_body)
        elif path.startswith(f"/{hub.repository}/resolve/{COMMIT}/"):
            self._file(path.split("/", 5)[5], with_body)
        else:
            self._json(404, {"error": "none"}, {"X-Error-Code": "RepoNotFound"}, with_body)

    def _json(self, status: int, value: object, headers: dict[str, str], with_body: bool) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        for name, text in {
            **headers,
            "Content-Type": "application/json",
            "Content-Length": str(len(data)),
        }.items():
            self.send_header(name, text)
        self.end_headers()
        if with_body:
            self.wfile.write(data)

    def _file(self, name: str, with_body: bool) -> None:
        hub = self.hub
        data = hub.spoilt.get(name, hub.files[name])
        listed = _listed(name, hub.files[name])
        begin = int(found[1]) if (found := re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))) else 0
        self.send_response(206 if begin else 200)
        etag = listed["lfs"]["oid"] if "lfs" in listed else listed["oid"]
        for header, text in {
            "ETag": f'"{etag}"',
            "X-Repo-Commit": COMMIT,
            "Accept-Ranges": "bytes",
            "Content-Length": str(len(data) - begin),
            **({"Content-Range": f"bytes {begin}-{len(data) - 1}/{len(data)}"} if begin else {}),
        }.items():
            self.send_header(header, text)
        self.end_headers()
        if not with_body:
            return
        with hub.lock:
            is_cut = hub.cuts > 0 and len(data) - begin > hub.cut_after
            hub.cuts -= is_cut
        rest = data[begin : begin + hub.cut_after] if is_cut else data[begin:]
        self.wfile.write(rest)
        with hub.lock:
            hub.sent += len(rest)
        if is_cut:
            self.wfile.flush()
            self.close_connection = True


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """The hub at `hub.address` while the block runs."""
    handler = type("Handler", (_Handler,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        work = threading.Thread(target=server.serve_forever, args=(0.05,))
        work.start()
        hub.address = f"http://127.0.0.1:{server.server_port}"
        try:
            yield hub
        finally:
            server.shutdown()
            work.join()
