from __future__ import annotations

import http.client
import os
import threading
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from provision.bundle.contents import MANIFEST, File, contents_of, text_of
from provision.bundle.folder import Bundle, read
from provision.bundle.server import bundle_server
from tests.conftest import RecordRefusal

FILES = {
    "wheels/llm/simple/index.html": b"<html></html>",
    "wheels/llm/torch-2.13.0+cpu.whl": os.urandom(3 << 20),
    "apt/Release": b"release",
}


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    files = [File(path=p, size=len(c), sha256=sha256(c).hexdigest()) for p, c in FILES.items()]
    (tmp_path / MANIFEST).write_bytes(text_of(contents_of({}, files)))
    return read(tmp_path)


@pytest.fixture
def port(bundle: Bundle) -> Iterator[int]:
    server = bundle_server(bundle, address="127.0.0.1", port=0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def ask(port: int, path: str, method: str = "GET", body: bytes | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body=body)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def test_what_the_manifest_names_is_served_below_its_digest(bundle: Bundle, port: int) -> None:
    at = f"/{bundle.digest}"

    assert ask(port, f"{at}/wheels/llm/simple/") == (200, FILES["wheels/llm/simple/index.html"])
    assert ask(port, f"{at}/wheels/llm/torch-2.13.0%2Bcpu.whl") == (
        200,
        FILES["wheels/llm/torch-2.13.0+cpu.whl"],
    )
    assert ask(port, f"{at}/wheels/llm/torch-2.13.0+cpu.whl#sha256=0")[0] == 200
    assert ask(port, f"{at}/apt/Release", "HEAD") == (200, b"")
    assert ask(port, f"{at}/apt/./Release") == (200, b"release")
    assert ask(port, f"{at}/{MANIFEST}")[1] == (bundle.folder / MANIFEST).read_bytes()


@pytest.mark.attack("network")
@pytest.mark.parametrize(
    "path",
    [
        *("/", "/apt/Release", "/{other}/apt/Release", "/{digest}", "/{digest}/", "/{digest}/apt/"),
        *("/{digest}/more", "/{digest}/link", "/{digest}/../secret", "/{digest}/%2e%2e/secret"),
        *("/{digest}//etc/passwd", "/{digest}/apt/../more", "/{digest}/apt/Release%00"),
    ],
)
def test_a_stranger_gets_nothing_that_the_manifest_does_not_name(
    bundle: Bundle, port: int, path: str, record_refusal: RecordRefusal
) -> None:
    (bundle.folder / "more").write_text("no")
    (bundle.folder.parent / "secret").write_text("no")
    (bundle.folder / "link").symlink_to("/etc/passwd")

    status, said = ask(port, path.format(digest=bundle.digest, other="0" * 64))

    record_refusal(f"{status} {said.decode()}")
    assert status == 404
    assert b"not in the manifest" in said


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE", "PATCH"])
def test_nothing_can_be_written(bundle: Bundle, port: int, method: str) -> None:
    assert ask(port, f"/{bundle.digest}/apt/Release", method, b"x")[0] == 501


def test_a_file_that_was_changed_is_not_sent_before_nor_after_it_was_sent_once(
    bundle: Bundle, port: int
) -> None:
    release = bundle.folder / "apt" / "Release"
    at = f"/{bundle.digest}/apt/Release"
    assert ask(port, at)[0] == 200

    release.write_bytes(b"releasE")
    assert ask(port, at)[0] == 500
    release.write_bytes(b"release")
    assert ask(port, at) == (200, b"release")
    release.unlink()
    release.symlink_to(bundle.folder / "wheels")
    assert ask(port, at)[0] == 500
