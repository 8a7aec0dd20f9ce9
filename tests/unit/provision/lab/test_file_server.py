from __future__ import annotations

import hashlib
import http.client
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ADDRESS = "127.0.0.77"  # loopback, but no address that another program listens on
PORT = 8077


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "current"
    words = ["-m", "provision.lab.file_server", "--folder", str(tmp_path), "--served", str(folder)]
    words = [sys.executable, *words, "--address", ADDRESS, "--port", str(PORT)]
    with subprocess.Popen(words) as server:
        while True:
            try:
                ask("GET", "/")
                break
            except ConnectionRefusedError:
                assert server.poll() is None
                time.sleep(0.02)
        yield folder
        server.kill()


def ask(method: str, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(ADDRESS, PORT, timeout=60)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def test_a_mirror_that_does_not_exist_yet_is_not_found_and_then_found(served: Path) -> None:
    before = ask("GET", "/a.txt")[0]

    served.mkdir()
    (served / "a.txt").write_text("there")

    assert before == 404
    assert ask("GET", "/a.txt") == (200, b"there")


def test_a_mirror_that_is_replaced_is_served_anew(served: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "name").write_text(name)
    served.symlink_to("one")
    first = ask("GET", "/name")[1]

    (tmp_path / "new").symlink_to("two")
    (tmp_path / "new").replace(served)

    assert (first, ask("GET", "/name")[1]) == (b"one", b"two")


def test_a_large_file_arrives_whole(served: Path) -> None:
    served.mkdir()
    content = os.urandom(8 << 20)
    (served / "big").write_bytes(content)

    status, received = ask("GET", "/big")

    assert status == 200
    assert hashlib.sha256(received).digest() == hashlib.sha256(content).digest()


def test_nothing_outside_the_folder_is_served(served: Path, tmp_path: Path) -> None:
    served.mkdir()
    (tmp_path / "secret").write_text("no")

    assert ask("GET", "/../secret")[0] == 404
    assert ask("GET", "/%2e%2e/secret")[0] == 404
