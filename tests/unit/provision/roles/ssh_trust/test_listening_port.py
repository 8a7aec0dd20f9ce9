"""A port at which nobody listens is named before anything is changed; the node's own program is run here."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

from provision.roles.ssh_trust.listening_port import refusals

PROGRAM = Path(__file__).parents[5] / "playbooks/roles/node_access/files/sshd_port.sh"


def printed(port: int) -> list[str]:
    words = ["sh", "-c", f"wanted={port}; {PROGRAM.read_text()}"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()


def test_a_port_counts_only_while_somebody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert printed(port) == [f"port {port} listens"]
    assert printed(port)[0] == f"port {port} silent"


def test_where_nobody_listens_the_port_of_sshd_is_named() -> None:
    probe = ["python True root True", "port 22 silent", "port of sshd 2222", "port of sshd 2222"]

    (found,) = refusals(probe, port=22)

    assert "nothing listens at port 22, where the other nodes would reach its sshd" in found
    assert "it listens by sshd 2222. Correct ansible_port" in found
    assert refusals(["port 22 listens"], port=22) == []
    assert refusals(["port 2222 silent"], port=22) == []
