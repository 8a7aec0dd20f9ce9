"""The node's side of a control channel: `python -m runtime.node`, started by ssh or by the launcher.

Frames come in on standard input and go out on standard output. It ends, and with it everything that it
started, when standard input closes or stays silent: no job outlives its launcher.
"""

from __future__ import annotations

import os
import queue
import select
import socket
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from runtime.edges import addresses
from runtime.edges.process import adopt_orphans
from runtime.errors import RuntimeFault
from runtime.gate.signature import put_certificate
from runtime.job import spec
from runtime.launch.node_process import NodeProcess
from runtime.probes import host, job, job_firewall, reachability, stream
from runtime.remote import frames
from runtime.remote.frames import Frame
from runtime.smoke.host.registry import probes

_POLL_SECONDS = 0.05
_PIPE_BYTES = 4096
_MEETING_SECONDS = 10.0
# Of the others: one shows whether what leaves this node is judged.
_INTRUDED_PEERS = 1


class LauncherGone(Exception):
    """Nobody is left to report to."""


class Line:
    """Both directions of the channel; reading has a thread of its own, so that silence is always noticed."""

    def __init__(self, *, read_descriptor: int, write_descriptor: int) -> None:
        self._in = read_descriptor
        self._out = write_descriptor
        self._frames: queue.SimpleQueue[Frame | None] = queue.SimpleQueue()
        self._heard = time.monotonic()
        self._closed = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with os.fdopen(self._in, "rb", closefd=False) as stream:
            for line in stream:
                self._heard = time.monotonic()
                frame = frames.decode(line.decode(errors="replace"))
                if frame is not None:
                    self._frames.put(frame)
        self._closed.set()
        # Wakes whoever waits for a frame: it is what a launcher waits for at its own end.
        self._frames.put(None)

    def _check(self) -> None:
        if self._closed.is_set() or time.monotonic() - self._heard > frames.SILENCE_SECONDS:
            raise LauncherGone

    def next(self, timeout_seconds: float) -> Frame | None:
        """The next frame, or None when none has come in time.

        Raises:
            LauncherGone: the channel closed or fell silent, and every frame has been handed out.
        """
        try:
            frame = self._frames.get(timeout=timeout_seconds)
        except queue.Empty:
            frame = None
        if frame is None:
            self._check()
        return frame

    def send(self, data: bytes) -> None:
        """Writes in pieces that a pipe takes at once, so that a launcher that is gone cannot block us."""
        rest = memoryview(data)
        while rest:
            self._check()
            if select.select([], [self._out], [], 0.5)[1]:
                try:
                    rest = rest[os.write(self._out, rest[:_PIPE_BYTES]) :]
                except BrokenPipeError as e:
                    raise LauncherGone from e


class Node:
    """Answers frames; at most one job at a time."""

    def __init__(self, line: Line, *, session: Mapping[str, str], python: str) -> None:
        self._line = line
        self._session = session
        self._python = python
        self._host = ""
        self._address = ""
        self._interface = ""
        self._meeting: socket.socket | None = None
        self._listener: reachability.Listener | None = None
        self._peers: list[reachability.Peer] = []
        self._target: stream.Target | None = None
        self._work: NodeProcess | None = None

    def serve(self) -> None:
        """Until the launcher is gone; then nothing of the job is left."""
        try:
            while True:
                frame = self._line.next(_POLL_SECONDS if self._work and not self._work.ended else 1.0)
                if frame is not None:
                    self._answer(frame)
                self._look_after_work()
        except LauncherGone:
            return
        finally:
            if self._work:
                self._work.kill()

    def _answer(self, frame: Frame) -> None:
        answers = {
            "hello": self._hello,
            "listen": self._listen,
            "connect": self._connect,
            "reach_ssh": self._reach_ssh,
            "intrude": self._intrude,
            "survey": self._survey,
            "files": self._files,
            "clock": self._clock,
            "compute": self._compute,
            "write": self._write,
            "serve": self._serve,
            "measure": self._measure,
            "certify": self._certify,
            "start": self._start,
            "look": self._look,
            "stop": self._stop,
            "ping": self._ping,
        }
        answers[frame["kind"]](frame)

    def _hello(self, frame: Frame) -> None:
        self._host = frame["name"]
        request = job.Request(**frame["request"])
        facts = job.observe(request, master_port=self._meet(request, frame["master_port"]))
        self._address, self._interface = facts.address, facts.interface
        self._line.send(frames.encode("facts", facts=asdict(facts)))

    def _meet(self, request: job.Request, port: int) -> int:
        """The port on which the ranks will meet, held from now on so that nobody else gets it; 0 for none."""
        address = addresses.resolve(request.master)
        if request.node_rank == 0 and self._meeting is None and addresses.is_own(address):
            self._meeting = addresses.listener(address, port)
        return int(self._meeting.getsockname()[1]) if self._meeting else 0

    def _listen(self, frame: Frame) -> None:
        if self._listener is None:
            self._listener = reachability.Listener(self._address, token=frame["token"])
        self._line.send(frames.encode("listening", address=self._address, port=self._listener.port))

    def _connect(self, frame: Frame) -> None:
        self._peers = peers = [reachability.peer_from_json(peer) for peer in frame["peers"]]
        reached = reachability.connect_all(
            self._host, self._address, peers, frame["timeout"], token=frame["token"]
        )
        self._line.send(frames.encode("reached", reached=[asdict(reach) for reach in reached]))

    def _intrude(self, _frame: Frame) -> None:
        own = [(self._address, self._listener.port)] if self._listener else []
        peers = [(peer.address, peer.port) for peer in self._peers[:_INTRUDED_PEERS]]
        intrusion = job_firewall.intrude(self._address, [*own, *peers])
        self._line.send(frames.encode("intruded", intrusion=asdict(intrusion)))

    def _reach_ssh(self, frame: Frame) -> None:
        ssh_reached = reachability.reach_ssh_of(self._host, frame["targets"], frame["timeout"])
        self._line.send(frames.encode("ssh_reached", ssh_reached=[asdict(reach) for reach in ssh_reached]))

    def _survey(self, frame: Frame) -> None:
        asked = {check: probe for check, probe in probes().items() if check in frame.get("probes", ())}
        seen = host.survey(
            frame["names"], own_address=self._address, config_path=frame["config"], probes=asked
        )
        self._line.send(frames.encode("surveyed", survey=asdict(seen)))

    def _files(self, frame: Frame) -> None:
        found = host.files(sys.prefix, timeout_seconds=frame["timeout"])
        self._line.send(frames.encode("files", files=asdict(found)))

    def _clock(self, _frame: Frame) -> None:
        self._line.send(frames.encode("clock", now=time.time()))

    def _compute(self, frame: Frame) -> None:
        self._line.send(frames.encode("computed", rate=host.compute_rate(frame["seconds"])))

    def _write(self, frame: Frame) -> None:
        folder = host.job_disk()
        try:
            rate, problem = host.write_rate(folder, frame["seconds"]), ""
        except OSError as e:
            rate, problem = 0.0, f"{folder}: {e.strerror}"
        self._line.send(frames.encode("written", rate=rate, problem=problem))

    def _serve(self, frame: Frame) -> None:
        if self._target is None:
            self._target = stream.Target(self._address, token=frame["token"])
        self._target.admit(frame["peers"])
        self._line.send(frames.encode("serving", address=self._address, port=self._target.port))

    def _measure(self, frame: Frame) -> None:
        where, bounds = (frame["address"], frame["port"]), stream.Bounds(**frame["bounds"])
        own = (self._host, self._address)
        result = stream.measure(*own, frame["target"], where, bounds, token=frame["token"])
        self._line.send(frames.encode("measured", result=asdict(result)))

    def _certify(self, frame: Frame) -> None:
        problem = put_certificate(Path(frame["path"]), frame["text"])
        self._line.send(frames.encode("certified", problem=problem))

    def _start(self, frame: Frame) -> None:
        order = spec.from_json(frame["order"])
        if problem := self._far_from_meeting(order):
            self._line.send(frames.encode("ended", ok=False, status=1, tail=[problem]))
            return
        try:
            self._work = NodeProcess(
                order,
                session=self._session,
                python=self._python,
                interface=self._interface,
                meeting=self._meeting,
            )
        except (OSError, RuntimeFault) as e:
            self._line.send(frames.encode("ended", ok=False, status=1, tail=[str(e)]))
        finally:
            self._forget_meeting()

    def _far_from_meeting(self, order: spec.Order) -> str:
        """Why this node does not get to where the ranks meet; they themselves would say nothing for long."""
        if self._meeting:
            return ""
        why = addresses.unreached(order.master_addr, order.master_port, timeout_seconds=_MEETING_SECONDS)
        place = f"{order.master_addr} port {order.master_port}"
        return why and f"the ranks meet at {place}, and this node does not get there: {why}"

    def _forget_meeting(self) -> None:
        """The store has it now: when that ends, nobody listens there any more."""
        if self._meeting is not None:
            self._meeting.close()
            self._meeting = None

    def _look(self, _frame: Frame) -> None:
        standing = self._work.standing() if self._work else []
        self._line.send(frames.encode("looked", standing=standing))

    def _stop(self, frame: Frame) -> None:
        if self._work:
            self._work.stop(frame["grace"])

    def _ping(self, _frame: Frame) -> None:
        self._line.send(frames.encode("pong"))

    def _look_after_work(self) -> None:
        if self._work:
            for data in self._work.poll():
                self._line.send(data)


def main(session: Mapping[str, str]) -> int:
    """Serves one launcher over the standard streams; nothing else may write to standard output."""
    adopt_orphans()
    out = os.dup(1)
    os.dup2(2, 1)
    Node(Line(read_descriptor=0, write_descriptor=out), session=session, python=sys.executable).serve()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(os.environ))
