"""Who floods a node's plain sockets keeps nobody else out for ever, and costs a bounded number of threads."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from functools import partial

import pytest

from runtime.edges.addresses import answer_each
from runtime.probes.reachability import Peer, connect_all
from runtime.probes.stream import Target
from tests.conftest import RecordRefusal

TOKEN = "0123456789abcdef"


FEW_DESCRIPTORS = """
import resource, signal
from runtime.probes.reachability import Listener
resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))
print(Listener("127.0.0.1", token="0123456789abcdef").port, flush=True)
signal.pause()
"""


@pytest.mark.attack("network")
def test_who_takes_all_descriptors_keeps_nobody_else_out_for_ever(record_refusal: RecordRefusal) -> None:
    with subprocess.Popen([sys.executable, "-c", FEW_DESCRIPTORS], stdout=subprocess.PIPE) as node:
        assert node.stdout
        peer = Peer(host="te2", address="127.0.0.1", port=int(node.stdout.readline()))
        flood = [socket.create_connection((peer.address, peer.port)) for _ in range(100)]
        time.sleep(0.5)
        for connection in flood:
            connection.close()

        (reach,) = connect_all("te1", "127.0.0.1", [peer], 30.0, token=TOKEN)
        node.terminate()

    record_refusal(f"after 100 connections at 32 descriptors: {reach.error or 'it answers who is proven'}")
    assert reach.ok


@pytest.mark.attack("network")
def test_connections_beyond_a_number_are_closed_and_cost_no_thread(record_refusal: RecordRefusal) -> None:
    released = threading.Event()

    def hold(connection: socket.socket) -> None:
        with connection:
            released.wait(30)

    with socket.create_server(("127.0.0.1", 0)) as server:
        answer = partial(answer_each, server, hold, most=2)
        threading.Thread(target=answer, daemon=True).start()
        before = threading.active_count()
        flood = [socket.create_connection(server.getsockname(), timeout=30) for _ in range(50)]

        closed = [connection.recv(1) for connection in flood[2:]]
        grown = threading.active_count() - before
        released.set()
        server.shutdown(socket.SHUT_RDWR)
    for connection in flood:
        connection.close()

    record_refusal(f"{len(closed)} of {len(flood)} were closed, {grown} threads")
    assert closed == [b""] * 48
    assert grown <= 2


@pytest.mark.attack("network")
def test_a_machine_that_is_no_peer_is_not_even_asked_for_the_token(record_refusal: RecordRefusal) -> None:
    target = Target("127.0.0.1", token=TOKEN)
    target.admit(["127.0.0.2"])
    with socket.create_connection(
        ("127.0.0.1", target.port), timeout=30, source_address=("127.0.0.3", 0)
    ) as stranger:
        said = stranger.recv(1)
    target.close()

    record_refusal(f"127.0.0.3 got {said!r}: closed")
    assert said == b""
