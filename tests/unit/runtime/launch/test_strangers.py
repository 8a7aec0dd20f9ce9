"""Who is not of the run gets nothing from its plain sockets; nothing that a node says breaks the launcher."""

from __future__ import annotations

import random
import resource
import socket
import stat
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from runtime.edges import addresses
from runtime.errors import NodesNotReady
from runtime.job.hostfile import Host
from runtime.launch.follow import run
from runtime.launch.preflight import check_nodes
from runtime.probes.job_firewall import intrude
from runtime.probes.reachability import Listener, Peer, connect_all
from runtime.probes.stream import Target
from runtime.remote import frames
from runtime.remote.session import Session, open_session
from runtime.untrusted.conform import Malformed
from tests.conftest import RecordRefusal
from tests.unit.runtime.launch.jobs import facts, job
from tests.unit.runtime.remote.test_frames import EXIT

TOKEN = "0123456789abcdef"
LOOPBACK = Host(name="127.0.0.1", slots=2)


def received(udp: socket.socket, seconds: float) -> int:
    """Packets that come in that time."""
    count, deadline = 0, time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        udp.settimeout(left)
        try:
            udp.recv(1 << 16)
        except TimeoutError:
            break
        count += 1
    return count


@pytest.fixture
def targets() -> Iterator[list[Target]]:
    peers = ["127.0.0.1", "127.0.0.2"]
    made = [Target(address, token=TOKEN) for address in peers]
    for target in made:
        target.admit(peers)
    yield made
    for target in made:
        target.close()


@pytest.mark.measures
@pytest.mark.attack("network")
def test_two_targets_do_not_answer_each_other_s_answers(
    targets: list[Target], record_refusal: RecordRefusal
) -> None:
    """Packets that claim to come from the other target; the kernel counts what follows."""
    first, second = targets
    for packet in (b"?" + TOKEN.encode() + bytes(40), b"!" + bytes(4), bytes(64), b""):
        second._udp.sendto(packet, ("127.0.0.1", first.port))
    time.sleep(0.3)
    before = udp_packets_received()
    time.sleep(0.3)

    more = udp_packets_received() - before
    record_refusal(f"this machine got {more} packets in the 0.3 s that followed")
    assert more < 50


def udp_packets_received() -> int:
    """What the kernel of this machine's network has handed on (InDatagrams of /proc/net/snmp)."""
    lines = [
        line.split() for line in Path("/proc/net/snmp").read_text().splitlines() if line.startswith("Udp:")
    ]
    return int(dict(zip(*lines, strict=True))["InDatagrams"])


@pytest.mark.attack("network")
@pytest.mark.parametrize(
    "packet",
    [b"", bytes(64), b"?" + b"f" * 16 + bytes(40), b"?" + TOKEN[:-1].encode(), b"!" + TOKEN.encode()],
)
def test_a_packet_without_the_token_is_not_answered(
    targets: list[Target], packet: bytes, record_refusal: RecordRefusal
) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.sendto(packet, ("127.0.0.1", targets[0].port))

        answers_heard = received(stranger, 0.2)
        record_refusal(f"recv: {answers_heard} packets in 0.2 s")
        assert answers_heard == 0


@pytest.mark.attack("network")
def test_a_packet_with_the_token_from_another_address_is_not_answered(
    targets: list[Target], record_refusal: RecordRefusal
) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.bind(("127.0.0.3", 0))
        stranger.sendto(b"?" + TOKEN.encode() + bytes(40), ("127.0.0.1", targets[0].port))

        answers_heard = received(stranger, 0.2)
        record_refusal(f"recv: {answers_heard} packets in 0.2 s")
        assert answers_heard == 0


@pytest.mark.attack("network")
@pytest.mark.parametrize(
    "said", [b"f" * 16, b'{"source": "te1", "target": "te2", "seconds": 1}\n', b"[" * 4096]
)
def test_a_connection_without_the_token_is_closed_without_a_word(
    targets: list[Target], said: bytes, record_refusal: RecordRefusal
) -> None:
    listener = Listener("127.0.0.1", token=TOKEN)
    for port in (targets[0].port, listener.port):
        with socket.create_connection(("127.0.0.1", port)) as stranger:
            stranger.sendall(said + bytes(1100))
            try:
                heard = stranger.recv(1)
                record_refusal(f"recv: {heard!r}, closed")
                assert heard == b""
            except ConnectionResetError as e:  # what it had said was not even read
                record_refusal(f"recv: {e}")
    listener.close()


# From here on: what a node says, and how the launcher takes it.


def mutated(generator: random.Random) -> bytes:
    """A frame of ours in which something is changed, or noise behind the mark of one."""
    good = [
        frames.encode("facts", facts=asdict(facts())),
        frames.encode("exit", **EXIT),
        frames.encode("lines", rank=0, pieces=["a\n"]),
        frames.encode("looked", standing=[{"rank": 0, "state": "S"}]),
    ]
    line = bytearray(generator.choice(good)[:-1])
    for _ in range(generator.randrange(1, 4)):
        at = generator.randrange(1, len(line))
        choice = generator.randrange(4)
        piece = generator.choice(
            (b"{", b"[[", b'"', b"1e999", b"\xff\xfe", b"null", b"\\ud800", b"-", b"\x1e")
        )
        line[at : at + (choice > 1)] = piece if choice else generator.randbytes(generator.randrange(40))
    return bytes(line).replace(b"\n", b" ") + b"\n"


@pytest.mark.attack("node")
def test_ten_thousand_wrong_frames_neither_break_nor_fill_the_launcher(record_refusal: RecordRefusal) -> None:
    generator = random.Random(0)
    lines = [mutated(generator) for _ in range(10_000)]
    frames.read(lines[0][:1], host="te1", ranks=(0,))
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    refused: list[str] = []

    for line in lines:
        try:
            frames.read(line, host="te1", ranks=(0,))
        except Malformed as e:
            refused.append(str(e))

    record_refusal(f"{len(refused)} refused, the first: {refused[0]}")
    assert len(refused) > 5000
    assert max(map(len, refused)) < 300
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 << 10  # KiB
    assert time.process_time() - started < 30


def node_that_says(path: Path, script: str) -> str:
    """A program in the place of a node's Python: what a machine that was taken over would run."""
    program = path / "python"
    program.write_text(f"#!{sys.executable}\nimport json, sys, time\nout = sys.stdout.buffer\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return str(program)


FLOOD = """
while True:
    out.write(b"\\x1e" + b'{"kind": "pong"}' + b"\\n")
"""
LONG = """
while True:
    out.write(b"x" * 65536)
"""


@pytest.mark.attack("node")
@pytest.mark.parametrize("script", [FLOOD, LONG], ids=["frames", "line"])
def test_a_node_that_floods_does_not_fill_the_launcher(
    tmp_path: Path, script: str, record_refusal: RecordRefusal
) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with open_session(job(hosts=(LOOPBACK,), python=node_that_says(tmp_path, script))) as session:
        time.sleep(1)  # Nobody listens, as while the launcher is busy.
        session.pause(0.5)

    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before  # KiB
    record_refusal(f"the launcher's memory grew by {grown} KiB")
    assert grown < 32 << 10


@pytest.mark.attack("node")
@pytest.mark.parametrize(
    "said",
    [
        b"\x1e{\n",
        b'\x1e{"kind": "facts", "facts": {}}\n',
        b'\x1e{"kind": "lines", "rank": 9, "pieces": []}\n',
    ],
)
def test_a_node_that_sends_what_no_node_sends_is_named(
    tmp_path: Path, said: bytes, record_refusal: RecordRefusal
) -> None:
    script = f"out.write({said!r}); out.flush(); time.sleep(60)"
    started = time.monotonic()
    with (
        open_session(job(hosts=(LOOPBACK,), python=node_that_says(tmp_path, script))) as session,
        pytest.raises(NodesNotReady) as e,
    ):
        check_nodes(session, gate=None)

    record_refusal(e.value)
    assert "127.0.0.1 (ranks 0-1): sent what no node of ours sends" in str(e.value)
    assert time.monotonic() - started < 50


LATE = """
for pair in ("127.0.0.2", "127.0.0.3", "127.0.0.1"):
    reach = {"source": "127.0.0.1", "target": pair, "error": "", "seconds": 0.1}
    out.write(b"\\x1e" + json.dumps({"kind": "ssh_reached", "ssh_reached": [reach]}).encode() + b"\\n")
out.flush()
time.sleep(60)
"""


def test_an_answer_to_another_question_is_not_taken_for_the_one_that_is_awaited(tmp_path: Path) -> None:
    hosts = tuple(Host(name=f"127.0.0.{number}", slots=1) for number in (1, 2, 3))
    with open_session(job(hosts=hosts, python=node_that_says(tmp_path, LATE))) as session:
        found = session.gather(
            "ssh_reached",
            60,
            hosts=["127.0.0.1"],
            fits=lambda _, frame: bool(frame["ssh_reached"][0].target == "127.0.0.3"),
        )

    assert found["127.0.0.1"]["ssh_reached"][0].target == "127.0.0.3"


ADDRESSES = ["a" * 70, "::1%" + "a" * 70, "a..b", "\ud800", "no address", ""]


@pytest.mark.attack("node")
@pytest.mark.parametrize("port", [1, 70_000, -1])
def test_no_address_of_another_node_ends_this_one(port: int, record_refusal: RecordRefusal) -> None:
    peers = [Peer(host=f"te{number}", address=address, port=port) for number, address in enumerate(ADDRESSES)]

    reached = connect_all("te1", "127.0.0.1", peers, 10, token=TOKEN)

    record_refusal("; ".join(sorted({one.error for one in reached})))
    assert [one.target for one in reached if one.error] == [peer.host for peer in peers]
    assert all(addresses.unreached(address, port, 10) for address in ADDRESSES if address)
    assert intrude("127.0.0.1", [(address, port) for address in ADDRESSES]).left_out


# The first node is well; the second does `THEN` when it is asked `WHEN`.
TWO_NODES = """
for line in sys.stdin.buffer:
    asked, said = json.loads(line[1:]), None
    kind = asked["kind"]
    if kind == "hello":
        name, first = asked["name"], asked["name"] == "127.0.0.1"
        said = {"facts": FACTS | {"owns_master": first, "network": name, "address": name}}
    elif kind == WHEN and not first:
        THEN
    elif kind == "listen":
        said = {"address": name, "port": 1}
    elif kind == "connect":
        tried = {"source": name, "error": "", "seconds": 0.1}
        said = {"reached": [tried | {"target": peer["host"]} for peer in asked["peers"]]}
    if said:
        kinds = {"hello": "facts", "listen": "listening", "connect": "reached"}
        out.write(b"\\x1e" + json.dumps(said | {"kind": kinds[kind]}).encode() + b"\\n")
        out.flush()
"""


@pytest.mark.attack("node")
@pytest.mark.parametrize(
    ("when", "then", "words"),
    [
        ("listen", "pass", "127.0.0.2 (rank 1): did not tell whom it reaches. See"),
        ("connect", "sys.exit('gone')", "127.0.0.2 (rank 1): did not tell whom it reaches"),
        ("listen", "said = {'address': 'a' * 70, 'port': 1}", "127.0.0.2 (rank 1): sent what no node of"),
        ("connect", "said = {'reached': 1}", "127.0.0.2 (rank 1): sent what no node of"),
        ("never", "pass", ""),
    ],
    ids=["mute", "ended", "address", "reached", "well"],
)
def test_a_job_does_not_start_where_a_node_does_not_tell_whom_it_reaches(
    tmp_path: Path, when: str, then: str, words: str, record_refusal: RecordRefusal
) -> None:
    said = {"master_address": "127.0.0.1", "interface": "lo"}
    script = TWO_NODES.replace("FACTS", repr(asdict(facts(**said)))).replace("WHEN", repr(when))
    hosts = tuple(Host(name=f"127.0.0.{number}", slots=1) for number in (1, 2))
    python = node_that_says(tmp_path, script.replace("THEN", then))
    refused = ""
    with open_session(job(hosts=hosts, python=python)) as session:
        try:
            check_nodes(session, gate=None)
        except NodesNotReady as e:
            refused = e.found

    record_refusal(refused or "nothing is refused where all is well")
    assert words in refused
    assert "127.0.0.1 (" not in refused
    assert bool(refused) == bool(words)


class Quiet:
    def on_text(self, rank: int, piece: str) -> None: ...
    def on_tick(self) -> str:
        return ""

    def on_failure(self, outcome: object) -> None: ...


@pytest.mark.attack("node")
def test_a_node_that_speaks_for_another_s_rank_ends_the_job_by_its_name(
    tmp_path: Path, record_refusal: RecordRefusal
) -> None:
    script = 'out.write(b\'\\x1e{"kind": "failing", "rank": 9}\\n\'); out.flush(); time.sleep(60)'
    session: Session
    with open_session(job(hosts=(LOOPBACK,), python=node_that_says(tmp_path, script))) as session:
        session.lines["127.0.0.1"].facts = facts()

        outcome = run(session, Quiet())

    record_refusal(outcome.nodes["127.0.0.1"].found)
    assert not outcome.ok
    assert "'failing' for 9, which is not there" in outcome.nodes["127.0.0.1"].found


def test_many_nodes_whose_program_is_not_there_do_not_hold_the_launcher_up() -> None:
    hosts = tuple(Host(name=f"127.0.0.{number}", slots=1) for number in range(1, 41))
    with open_session(job(hosts=hosts, python="/nowhere/python")) as session:
        session.hear(20)

        assert [line.status for line in session.lines.values()] == [127] * 40
