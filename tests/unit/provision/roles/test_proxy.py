"""What programs are told of a site's proxy, held against the programs themselves where they are here."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from provision.edges.fetch import unreachable
from provision.roles.proxy import (
    HIDDEN,
    apt_text,
    direct_hosts,
    environment_text,
    hidden,
    is_direct,
    proxy_fault,
    secrets_of,
)

ROOT = Path(__file__).parents[4]
FETCH = ROOT / "playbooks" / "roles" / "miniconda" / "files" / "fetch_installer.py"
PROXIED = ["sh", "-ec", '. "$0"; exec "$@"']
PROXY = "http://ann:s%40fe%24HOME@proxy.example:3128"
CONTENT = b"an installer"
# No resolver knows it (RFC 6761): what answers for it is a proxy.
ELSEWHERE = "http://mirror.invalid/installer.sh"


class Forwarding(BaseHTTPRequestHandler):
    """A proxy that answers for every machine, and keeps what it was asked and by whom."""

    asked: list[tuple[str, str]]

    def do_GET(self) -> None:
        self.asked.append((self.path, self.headers.get("Proxy-Authorization", "")))
        self.send_response(200)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(CONTENT)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def forwarding() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """The address of a proxy with a password, and what it was asked."""
    asked: list[tuple[str, str]] = []
    handler = type("Handler", (Forwarding,), {"asked": asked})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://ann:secret@127.0.0.1:{server.server_port}", asked
        server.shutdown()


def test_nodes_and_this_machine_are_reached_without_and_whom_the_site_names() -> None:
    direct = direct_hosts(["te1", "10.0.0.1", "te1"], [".corp.example"])

    assert direct == ["localhost", "127.0.0.1", "::1", "te1", "10.0.0.1", ".corp.example"]


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("http://te1:8080/apt", True),
        ("https://mirror.corp.example/x", True),
        ("https://corp.example/x", True),
        ("https://notcorp.example/x", False),
        ("https://te1.example/x", False),
        ("http://[fd00::1]:8080/x", True),
        ("http://10.0.0.11/x", False),
    ],
)
def test_who_is_reached_without_is_told_by_whole_names(address: str, expected: bool) -> None:
    assert is_direct(address, ["te1", ".corp.example", "fd00::1", "10.0.0.1"]) is expected


def test_a_shell_takes_the_environment_as_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "environment").write_text(environment_text(PROXY, ["localhost", "te1"]))
    words = [*PROXIED, str(tmp_path / "environment"), "sh", "-c", 'echo "$https_proxy $no_proxy|$HTTP_PROXY"']

    said = subprocess.run(
        words, env={"HTTP_PROXY": "http://other"}, capture_output=True, text=True, check=True
    )

    assert said.stdout == f"{PROXY} localhost,te1|\n"


@pytest.mark.skipif(shutil.which("apt-config") is None, reason="no apt here")
def test_apt_takes_its_configuration_and_leaves_out_its_sources_that_are_near(tmp_path: Path) -> None:
    near = "http://mirror.corp.example/debian"
    path = tmp_path / "apt.conf"
    path.write_text(apt_text(PROXY, [".corp.example", "te1", "::1"], [near, "", "http://far.example/apt"]))

    said = subprocess.run(
        ["apt-config", "dump", "Acquire::http"], env={"APT_CONFIG": str(path)}, capture_output=True, text=True
    )

    assert f'Acquire::http::Proxy "{PROXY}";' in said.stdout
    assert 'Acquire::http::Proxy::mirror.corp.example "DIRECT";' in said.stdout
    assert 'Acquire::http::Proxy::te1 "DIRECT";' in said.stdout
    assert "far.example" not in said.stdout


def test_neither_name_nor_password_is_left_of_what_is_said() -> None:
    said = f"cannot reach {PROXY}, nor with s@fe$HOME, as ann:s@fe$HOME@proxy.example"

    shown = hidden(said, secrets_of(PROXY))

    assert "s@fe" not in shown
    assert "s%40fe" not in shown
    assert f"http://{HIDDEN}proxy.example:3128" in shown


@pytest.mark.parametrize(
    "address", ["ann:secret@proxy:1", "http://ann:a secret@proxy", "http://[ann:secret@x"]
)
def test_of_what_is_no_address_nothing_is_left_that_could_be_a_password(address: str) -> None:
    assert proxy_fault(address)
    assert "secret" not in proxy_fault(address)
    assert hidden(f"it is {address}", secrets_of(address)) == f"it is {HIDDEN}"


@pytest.mark.parametrize("address", ["", "http://proxy.example:3128"])
def test_an_address_without_a_password_is_shown(address: str) -> None:
    assert secrets_of(address) == []


def test_sources_are_asked_through_the_proxy(forwarding: tuple[str, list[tuple[str, str]]]) -> None:
    proxy, asked = forwarding

    assert unreachable([ELSEWHERE], timeout_seconds=10, proxy=proxy) == {}
    assert asked == [(ELSEWHERE, "Basic YW5uOnNlY3JldA==")]


def fetched(folder: Path, proxy: str, sha256: str) -> subprocess.CompletedProcess[str]:
    (folder / "environment").write_text(environment_text(proxy, ["localhost"]))
    words = [*PROXIED, str(folder / "environment"), sys.executable, "-c", FETCH.read_text()]
    return subprocess.run(
        [*words, ELSEWHERE, str(folder / "installer.sh"), sha256], capture_output=True, text=True, check=False
    )


def test_the_installer_comes_through_the_proxy(
    forwarding: tuple[str, list[tuple[str, str]]], tmp_path: Path
) -> None:
    finished = fetched(tmp_path, forwarding[0], hashlib.sha256(CONTENT).hexdigest())

    assert finished.returncode == 0, finished.stderr
    assert (tmp_path / "installer.sh").read_bytes() == CONTENT
    assert (tmp_path / "installer.sh").stat().st_mode & 0o777 == 0o600


def test_another_file_than_the_installer_is_not_kept(
    forwarding: tuple[str, list[tuple[str, str]]], tmp_path: Path
) -> None:
    finished = fetched(tmp_path, forwarding[0], "0" * 64)

    assert finished.returncode == 1
    assert "checksum" in finished.stderr
    assert not (tmp_path / "installer.sh").exists()


def test_a_proxy_that_is_not_there_is_said_without_its_password(tmp_path: Path) -> None:
    finished = fetched(tmp_path, "http://ann:secret@127.0.0.1:9", "0" * 64)

    assert finished.returncode == 1
    assert "cannot be fetched through the proxy" in finished.stderr
    assert "secret" not in finished.stderr
