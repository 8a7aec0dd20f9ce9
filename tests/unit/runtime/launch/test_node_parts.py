"""The parts of a node's side that need no launcher: frames, tails, sockets, processes."""

from __future__ import annotations

import os
import queue
import socket
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from runtime.edges import addresses
from runtime.edges.log_tail import last_lines
from runtime.edges.process import Channel, Program, descendants, kill_descendants
from runtime.job.argv import node_argv
from runtime.job.hostfile import Host
from runtime.job.spec import orders
from runtime.node import LauncherGone, Line, Node
from runtime.probes.job import Request, observe, torch_version
from runtime.probes.reachability import Listener, Peer, connect_all, reach_ssh_of
from runtime.probes.stream import Bounds, PairResult, measure
from runtime.remote import frames
from tests.conftest import RecordRefusal
from tests.unit.runtime.launch.jobs import job

TOKEN = "0123456789abcdef"


def test_a_frame_is_read_back_and_other_lines_are_not_frames() -> None:
    line = frames.encode("lines", pieces=["a\n", "\x1e"]).decode()

    assert line.count("\n") == 1
    assert frames.decode(line) == {"kind": "lines", "pieces": ["a\n", "\x1e"]}
    for other in ("Welcome to te1", "\x1e{", '{"kind": "lines"}', "\x1e[]", "\x1e{}"):
        assert frames.decode(other) is None


def test_a_launcher_that_leaves_wakes_the_node_that_waits_for_it() -> None:
    reading, writing = os.pipe()
    line = Line(read_descriptor=reading, write_descriptor=1)
    os.write(writing, frames.encode("ping"))
    threading.Timer(0.2, os.close, [writing]).start()
    started = time.monotonic()

    first = line.next(60)
    with pytest.raises(LauncherGone):
        line.next(60)
    with pytest.raises(LauncherGone):
        line.next(0.01)

    assert first == {"kind": "ping"}
    assert time.monotonic() - started < 30
    os.close(reading)


def test_a_launcher_that_is_silent_is_gone_though_its_channel_is_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(frames, "SILENCE_SECONDS", 1.0)
    reading, writing = os.pipe()
    line = Line(read_descriptor=reading, write_descriptor=1)
    time.sleep(0.7)
    os.write(writing, frames.encode("ping"))

    assert line.next(60) == {"kind": "ping"}
    time.sleep(0.7)
    assert line.next(0.01) is None
    with pytest.raises(LauncherGone):
        line.next(1.0)
    os.close(writing)
    os.close(reading)


def test_the_mesh_finds_who_answers_and_who_does_not() -> None:
    listener = Listener("127.0.0.1", token=TOKEN)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        peers = [
            Peer(host="up", address="127.0.0.1", port=listener.port),
            Peer(host="down", address="127.0.0.1", port=unused.getsockname()[1]),
        ]

        reached = connect_all("me", "127.0.0.1", peers, 30.0, token=TOKEN)
    listener.close()

    assert [(reach.target, reach.ok, reach.error) for reach in reached] == [
        ("up", True, ""),
        ("down", False, "Connection refused"),
    ]


def test_a_peer_that_accepts_and_says_nothing_is_given_up_in_time() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        started = time.monotonic()

        peer = Peer(host="p", address="127.0.0.1", port=silent.getsockname()[1])
        (reach,) = connect_all("me", "127.0.0.1", [peer], 0.2, token=TOKEN)

    assert reach.error == "no answer within 0.2 s"
    assert time.monotonic() - started < 30


def test_who_tries_ssh_says_why_a_door_stays_shut(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        monkeypatch.setattr("runtime.probes.reachability.SSH_PORT", door.getsockname()[1])
        (shut,) = reach_ssh_of("me", ["127.0.0.1"], 1.0)
        door.listen()
        (opened,) = reach_ssh_of("me", ["127.0.0.1"], 1.0)

    assert (shut.ok, shut.error) == (False, "Connection refused")
    assert opened.ok


def test_a_node_that_came_late_is_measured_by_those_that_served_before(tmp_path: Path) -> None:
    questions, asking = os.pipe()
    answered, answering = os.pipe()
    line = Line(read_descriptor=questions, write_descriptor=answering)
    node = Node(line, session={}, python=sys.executable)
    threading.Thread(target=node.serve, daemon=True).start()
    request = asdict(asked(tmp_path, tmp_path / "jobs", cwd=str(tmp_path)))
    os.write(asking, frames.encode("hello", name="te1", request=request, master_port=0))

    def measured_by_late(peers: list[str]) -> PairResult:
        os.write(asking, frames.encode("serve", token=TOKEN, peers=peers))
        port = next(f["port"] for f in map(frames.decode, answers) if f and f["kind"] == "serving")
        bounds = Bounds(connect_seconds=5.0, latency_seconds=0.01, stream_seconds=0.05)
        return measure("te3", "127.0.0.3", "te1", ("127.0.0.1", port), bounds, token=TOKEN)

    with os.fdopen(answered) as answers:
        early = measured_by_late(["127.0.0.2"])
        late = measured_by_late(["127.0.0.2", "127.0.0.3"])
        os.close(asking)

    assert early.error
    assert not early.bytes_per_s
    assert late.bytes_per_s, late.error


def test_own_addresses_interfaces_and_ports() -> None:
    assert addresses.is_own("127.0.0.1")
    assert not addresses.is_own("192.0.2.77")
    assert not addresses.is_own("")
    assert addresses.interface_of(addresses.source_towards("127.0.0.1")) == "lo"
    assert addresses.resolve("localhost") == "127.0.0.1"
    assert addresses.resolve("127.0.0.9") == "127.0.0.9"
    assert addresses.interface_of("::1") == "lo"


def test_an_address_has_brackets_before_a_port_where_it_has_colons() -> None:
    assert [addresses.in_url(text) for text in ("10.0.0.1", "te1", "fd88::11")] == [
        "10.0.0.1",
        "te1",
        "[fd88::11]",
    ]


def test_an_ipv6_address_leads_to_its_interface(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "if_inet6"
    table.write_text(
        "00000000000000000000000000000001 01 80 10 80       lo\n"
        "fe800000000000000046 96fffe9e51b8\n"
        "fe80000000000000004696fffe9e51b8 02 40 20 80     eth9\n"
        "fd880000000000000000000000000011 02 40 00 80     eth9\n"
    )
    monkeypatch.setattr(addresses, "_IPV6", table)

    assert addresses.interface_of("fd88:0:0::11") == "eth9"
    assert addresses.interface_of("fd88::12") == ""
    assert addresses.address_of("eth9") == "fd88::11/64"


def test_a_meeting_point_listens_on_its_address_alone_and_is_nobody_else_s() -> None:
    server = addresses.listener("127.0.0.1", 0)
    assert server is not None
    with server:
        address, port = server.getsockname()

        assert address == "127.0.0.1"
        assert port > 1023
        assert addresses.listener("127.0.0.1", port) is None
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", port))


def test_a_node_observes_itself_without_importing_torch(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("pass")
    request = Request(
        node_rank=0,
        master="127.0.0.1",
        kind="script",
        program="train.py",
        cwd=str(tmp_path),
        job_path=str(tmp_path / "jobs" / "j"),
        certificate_path=str(tmp_path / "certificate.json"),
    )
    already = "torch" in sys.modules

    seen = observe(request)

    assert (seen.has_cwd, seen.has_program, seen.job_path_problem) == (True, True, "")
    assert seen.program_digest == "d74ff0ee8da3b9806b18c877dbf29bbde50b5bd8e4dad7a3a725000feb82e8f1"
    assert (seen.master_address, seen.owns_master, seen.interface) == ("127.0.0.1", True, "lo")
    assert seen.torch == torch_version() != ""
    assert ("torch" in sys.modules) == already


def asked(folder: Path, job_path: Path, *, cwd: str) -> Request:
    return Request(
        node_rank=1,
        master="127.0.0.1",
        kind="module",
        program="m",
        cwd=cwd,
        job_path=str(job_path),
        certificate_path=str(folder / "certificate.json"),
    )


@pytest.mark.parametrize("path", ["file/jobs", "file"])
def test_a_job_folder_below_a_file_is_refused(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_text("")
    request = asked(tmp_path, tmp_path / path, cwd="/nowhere")

    seen = observe(request)

    assert seen.job_path_problem == f"{tmp_path}/file is not a folder"
    assert not seen.has_cwd


@pytest.mark.attack("user")
def test_a_node_says_before_a_job_starts_who_could_take_its_folder_away(
    tmp_path: Path, record_refusal: RecordRefusal
) -> None:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs").chmod(0o777)
    request = asked(tmp_path, tmp_path / "jobs" / "j", cwd="/")

    seen = observe(request)

    record_refusal(seen.job_path_problem)
    assert seen.job_path_problem.startswith(f"{tmp_path}/jobs has mode 0777: everybody can replace")


def test_a_channel_hands_on_lines_and_the_end_and_dies_when_told() -> None:
    lines: list[bytes] = []
    errors: list[bytes] = []
    ends: list[int] = []
    program = (
        "import sys; print('ready', flush=True); print('oops', file=sys.stderr); "
        "sys.stdin.read(); sys.exit(3)"
    )
    channel = Channel(
        [sys.executable, "-c", program],
        on_line=lines.append,
        on_error_line=errors.append,
        on_end=ends.append,
    )

    channel.send(b"hello\n")
    channel.hang_up()
    channel.end(10)

    assert (lines, errors, ends) == ([b"ready\n"], [b"oops\n"], [3])


def test_a_channel_that_does_not_leave_is_killed() -> None:
    ends: list[int] = []
    channel = Channel(
        [sys.executable, "-c", "import time; time.sleep(60)"],
        on_line=lambda _line: None,
        on_error_line=lambda _line: None,
        on_end=ends.append,
    )

    channel.hang_up()
    channel.end(0.2)

    assert ends == [-9]


def test_descendants_are_found_across_sessions_and_killed(tmp_path: Path) -> None:
    program = (
        "import subprocess, time; subprocess.Popen(['sleep', '60'], start_new_session=True); time.sleep(60)"
    )
    with (tmp_path / "log").open("wb") as log:
        above = Program([sys.executable, "-c", program], env=dict(os.environ), cwd="/", output=log.fileno())
    deadline = time.monotonic() + 50
    while len(descendants(above.pid)) < 1 and time.monotonic() < deadline:
        time.sleep(0.02)
    (sleeper,) = descendants(above.pid)

    killed = kill_descendants(above.pid)
    above.terminate()
    while above.status() is None and time.monotonic() < deadline:
        time.sleep(0.02)

    lives = Path(f"/proc/{sleeper}/exe")  # gone once the kernel has ended it, which may take a moment
    while lives.exists() and time.monotonic() < deadline:
        time.sleep(0.02)

    assert killed == 1
    assert above.status() == -15
    assert not lives.exists()


def test_a_node_that_does_not_get_to_where_the_ranks_meet_says_so_and_starts_none(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    order = orders(job(job_path=str(tmp_path / "job")), master_addr="127.0.0.1", master_port=port)[1]
    said: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    channel = Channel(
        node_argv(sys.executable), on_line=said.put, on_error_line=said.put, on_end=lambda _status: None
    )

    channel.send(frames.encode("start", order=asdict(order)))
    ended = frames.decode(said.get().decode())
    channel.hang_up()
    channel.end(60.0)

    assert ended
    assert (ended["kind"], ended["ok"]) == ("ended", False)
    assert f"the ranks meet at 127.0.0.1 port {port}, and this node does not get there" in ended["tail"][0]
    assert not (tmp_path / "job").exists()


@pytest.mark.attack("user")
def test_a_pipe_in_a_record_s_place_holds_no_node_up(tmp_path: Path, record_refusal: RecordRefusal) -> None:
    """The end of a rank, its number and its log: nobody ever writes into these."""
    planting = "cd logs; for name in exit.json pid log; do rm -f rank0.$name; mkfifo rank0.$name; done"
    words = ("sh", "-c", f"{planting}; touch ../planted; exec sleep 300")
    folder = tmp_path / "job"
    folder.mkdir()
    asked = job(
        hosts=(Host(name="te1", slots=1),), kind="program", words=words, job_path=str(folder), cwd=str(folder)
    )
    said: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    ends: queue.SimpleQueue[int] = queue.SimpleQueue()
    channel = Channel(node_argv(sys.executable), on_line=said.put, on_error_line=print, on_end=ends.put)
    try:
        with socket.create_server(("127.0.0.1", 0)) as meeting:
            order = orders(asked, master_addr="127.0.0.1", master_port=meeting.getsockname()[1])[0]
            channel.send(frames.encode("start", order=asdict(order)))
            deadline = time.monotonic() + 60
            while not (folder / "planted").exists() and time.monotonic() < deadline:
                time.sleep(0.02)
        channel.send(frames.encode("look"))
        looked = frames.decode(said.get(timeout=60).decode())
        channel.hang_up()
        ended = ends.get(timeout=60)
    finally:
        channel.hang_up()
        channel.end(1.0)

    record_refusal(f"the node answers {looked}, and ends with its launcher")
    assert looked == {"kind": "looked", "standing": [{"rank": 0, "state": ""}]}
    assert ended == 0
    assert last_lines(folder / "logs" / "rank0.log", 1) == ()
