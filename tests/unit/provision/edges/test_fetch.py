"""What an address answers that is no web server, or a hostile one."""

from __future__ import annotations

import gc
import socket
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from provision.edges.fetch import fetch, unreachable
from provision.errors import CommandFailed
from tests.conftest import RecordRefusal

ANSWERS = {
    "no status": b"\x1b[31mgarbage\r\n\r\n",
    "an endless line": b"HTTP/1.1 200 " + b"a" * 70_000 + b"\r\n",
    "a flood of headers": b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200 + b"\r\n",
    "a way to no address": b"HTTP/1.1 302 x\r\nLocation: http://[::1\r\n\r\n",
    "a way to a file": b"HTTP/1.1 302 x\r\nLocation: file:///etc/passwd\r\n\r\n",
    "no chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
}


@pytest.fixture
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    """Where whoever asks gets these bytes, twice."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            for _ in range(2):
                connection, _ = server.accept()
                with connection:
                    connection.recv(4096)
                    connection.sendall(request.param)

        threading.Thread(target=answer, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/file"


@pytest.mark.attack("network")
@pytest.mark.parametrize("address", ANSWERS.values(), ids=list(ANSWERS), indirect=True)
def test_what_is_no_answer_is_refused_in_words(
    address: str, tmp_path: Path, record_refusal: RecordRefusal
) -> None:
    said = unreachable([address], timeout_seconds=5)

    with pytest.raises(CommandFailed) as refusal:
        fetch(address, tmp_path / "file", sha256="0" * 64, timeout_seconds=5)
    record_refusal(refusal.value)
    del refusal
    with warnings.catch_warnings(action="ignore"):
        gc.collect()  # urllib leaves its socket to the collector where the answer's first line is none
    assert list(tmp_path.iterdir()) == []
    assert set(said) <= {address}
