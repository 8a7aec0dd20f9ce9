"""Sends a folder through a chain of nodes: each unpacks it and hands it on, so that the first sends it once.

    python3 -c 'import sys; exec(sys.argv[1])' THIS_TEXT WORDS, where WORDS are
    ask USER NODE...              which of them this node reaches
    receive USER FOLDER NODE...   on each of them: itself, and those behind it
    send USER FOLDER NODE...      on the node that has it

Root runs all three. USER is who reaches the other nodes by ssh, and has no other rights there: root of the
next node waits at a socket of that user's in the working folder beside it, in the background once `receive`
has ended. What takes it out of that user's hands is a key, the same at both ends, in hexadecimal on standard
input of `receive` and `send`: every piece of the stream is signed with it (BLAKE2, RFC 7693), in its order.

What arrives is unpacked in the working folder and takes its place only when it came to its end; what was
there is then `previous` in it, which is never deleted here. Equal digests of all nodes are compared
afterwards. A node that fails hands it on all the same; one whose connection breaks ends the chain; one where
processes run from the folder refuses it. `ask` and `send` print a line of JSON for each node: node, ok,
error, bytes. Needs the standard library, ssh and tar; THIS_TEXT has environment_hardening.py in it, and of
module_utils running.py and working_folder.py.

The node that sends may be somebody else's by now: what arrives is files, folders and links of root, without
rights for others, without what no digest speaks for (the sender's records, what conda was told).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import json
import os
import pwd
import shlex
import shutil
import socket
import stat
import struct
import subprocess
import sys
from collections.abc import Callable
from typing import IO

from environment_hardening import SETTINGS, close, openings, places_in
from running import refusal
from working_folder import opened, working_folder

CHUNK_BYTES = 1 << 20
HEADER = struct.Struct("!I32s")
PEER = struct.Struct("3i")
WAIT_SECONDS = 300
F_SETPIPE_SZ = 1031  # fcntl(2); the module names it from Python 3.10 on
TAR = ("tar", "--blocking-factor=2048")
AS_OURS = ("--no-same-owner", "--no-same-permissions")
# As set_aside.py has it: until its digest is recorded, it is a build of ours that was not finished.
RECORDS, CLAIM, UNFINISHED = ".clusterwright", "record.json", '{"unfinished": true}\n'
# Who receives it takes bytecode away, and Python makes it again: it differs, so no digest speaks for it.
LEFT_OUT = "--exclude=__pycache__"
SSH = (
    *("ssh", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "ConnectTimeout=5"),
    *("-o", "Compression=no", "-o", "Ciphers=^aes128-gcm@openssh.com", "-o", "ServerAliveInterval=15"),
)
# What the user runs on the next node: its input into the socket, and back what is said there.
BRIDGE = """
import contextlib, os, shutil, socket, sys
os.chdir(sys.argv[1])
line = socket.socket(socket.AF_UNIX)
line.connect(sys.argv[2])
with contextlib.suppress(BrokenPipeError), line.makefile("wb") as there:
    shutil.copyfileobj(sys.stdin.buffer, there, 1 << 20)
    there.flush()
    line.shutdown(socket.SHUT_WR)
with line.makefile("rb") as back:
    shutil.copyfileobj(back, sys.stdout.buffer)
"""


def say(out: IO[str], node: str, error: str, count: int) -> None:
    out.write(json.dumps({"node": node, "ok": not error, "error": error, "bytes": count}) + "\n")
    out.flush()


def ssh_of(user: str) -> tuple[str, ...]:
    """The words by which that user's ssh is called."""
    return SSH if pwd.getpwnam(user).pw_uid == os.geteuid() else ("runuser", "-u", user, "--", *SSH)


SOCKET = "relay.socket"  # of the working folder: whole paths can be too long, unix(7)


class Signs:
    """What each piece of a stream is signed with: its number and its bytes."""

    def __init__(self, key: bytes) -> None:
        self.key, self.count = key, 0

    def next(self, data: bytes) -> bytes:
        self.count += 1
        signed = hashlib.blake2b(self.count.to_bytes(8, "big"), key=self.key, digest_size=32)
        signed.update(data)
        return signed.digest()


def widen(pipe: IO[bytes] | None) -> IO[bytes]:
    """Gives a pipe a MiB, not 64 KiB: the programs take turns less often, which is a fourth of the time."""
    assert pipe
    with contextlib.suppress(OSError):
        fcntl.fcntl(pipe, F_SETPIPE_SZ, CHUNK_BYTES)
    return pipe


class Next:
    """The rest of the chain; nothing where there is none."""

    process: subprocess.Popen[bytes] | None = None

    def __init__(self, user: str, folder: str, nodes: tuple[str, ...]) -> None:
        if nodes:
            self.node = nodes[0]
            words = ["python3", "-c", BRIDGE, working_folder(folder), SOCKET]
            command = [*ssh_of(user), self.node, shlex.join(words)]
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            widen(self.process.stdin)

    def send(self, header: bytes, data: bytes) -> None:
        """One piece; a chain that has broken is left alone."""
        if self.process and self.process.stdin:
            try:
                self.process.stdin.write(header)
                self.process.stdin.write(data)
            except OSError:
                self.process.stdin = None

    def end(self, out: IO[str]) -> None:
        """Hands on what the rest of the chain says."""
        if not self.process:
            return
        if self.process.stdin:
            with contextlib.suppress(OSError):
                self.process.stdin.close()
        assert self.process.stdout
        said = self.process.stdout.read().decode(errors="replace")
        status = self.process.wait()
        out.write(said)
        if self.node not in said:
            say(out, self.node, f"the connection to it ended with status {status}", 0)


def ask(user: str, *nodes: str) -> None:
    """All at once; a node must let this one in, and have what a relay needs."""
    try:
        ssh, command = ssh_of(user), "command -v python3 tar"
    except KeyError as e:  # in check mode, before role job_user has made it
        for node in nodes:
            say(sys.stdout, node, str(e), 0)
        return
    asked = {node: subprocess.Popen([*ssh, node, command], stdout=subprocess.DEVNULL) for node in nodes}
    for node, process in asked.items():
        status = process.wait()
        say(sys.stdout, node, f"ssh ended with status {status}" if status else "", 0)


def send(user: str, folder: str, *nodes: str) -> None:
    signs, rest = Signs(key_given()), Next(user, folder, nodes)
    parent, name = os.path.split(folder)
    tar = subprocess.Popen([*TAR, LEFT_OUT, "-C", parent, "-cf", "-", name], stdout=subprocess.PIPE)
    packed = widen(tar.stdout)
    while data := packed.read(CHUNK_BYTES):
        rest.send(HEADER.pack(len(data), signs.next(data)), data)
    # An empty piece ends the stream; without it, it was cut off.
    if tar.wait() == 0:
        rest.send(HEADER.pack(0, signs.next(b"")), b"")
    rest.end(sys.stdout)


def key_given() -> bytes:
    return bytes.fromhex(sys.stdin.readline())


def piece(stream: IO[bytes], signs: Signs) -> tuple[bytes, bytes]:
    """The next piece with its header; nothing of it is believed before its signature is right."""
    header = stream.read(HEADER.size)
    if len(header) < HEADER.size:
        raise OSError("the stream was cut off")
    length, signature = HEADER.unpack(header)
    if length > CHUNK_BYTES:
        raise OSError("a piece of the stream is too large")
    data = stream.read(length)
    if len(data) < length:
        raise OSError("the stream was cut off")
    if not hmac.compare_digest(signature, signs.next(data)):
        raise OSError("the stream is not signed with the key of this run")
    return header, data


def receive(user: str, folder: str, *nodes: str) -> None:
    """Waits for the stream in the background, once the socket is there."""
    key, owner = key_given(), pwd.getpwnam(user)
    os.chdir(opened(folder))
    with contextlib.suppress(FileNotFoundError):
        os.unlink(SOCKET)
    os.umask(0o177)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(SOCKET)
    os.chown(SOCKET, owner.pw_uid, owner.pw_gid)
    os.umask(0o022)
    listener.listen()
    if os.fork():
        return
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(nothing, number)
    try:
        line = accept(listener, (0, owner.pw_uid))
    finally:
        os.unlink(SOCKET)
    with line, line.makefile("rb") as stream, line.makefile("w") as out:
        unpack(stream, out, Signs(key), Next(user, folder, nodes[1:]), folder, nodes[0])


def accept(listener: socket.socket, users: tuple[int, ...]) -> socket.socket:
    """The first connection of one of these users; others' are hung up."""
    listener.settimeout(WAIT_SECONDS)
    while True:
        line, _ = listener.accept()
        _, peer, _ = PEER.unpack(line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER.size))
        if peer in users:
            line.settimeout(WAIT_SECONDS)
            return line
        line.close()


def unpack(stream: IO[bytes], out: IO[str], signs: Signs, rest: Next, folder: str, own: str) -> None:
    name, arriving = os.path.basename(folder), os.path.join(opened(folder), "arriving")
    shutil.rmtree(arriving, ignore_errors=True)
    count, error = 0, ""
    tar: subprocess.Popen[bytes] | None = None
    try:
        os.makedirs(arriving, 0o700)
        tar = subprocess.Popen(
            [*TAR, *AS_OURS, "-C", arriving, "-xf", "-"], stdin=subprocess.PIPE, stderr=subprocess.PIPE
        )
        widen(tar.stdin)
    except OSError as e:
        error = str(e)
    try:
        while True:
            header, data = piece(stream, signs)
            rest.send(header, data)
            if not data:
                break
            count += len(data)
            if tar and tar.stdin and tar.stderr and not error:
                try:
                    tar.stdin.write(data)
                except OSError:
                    error = tar.stderr.read().decode(errors="replace").strip()[-300:] or "tar ended"
    except OSError as e:
        error = error or str(e)
    if tar and not error:
        _, said = tar.communicate()
        if tar.returncode:
            error = said.decode(errors="replace").strip()[-300:]
    elif tar:
        tar.kill()
        tar.wait()
    if not error:
        try:
            make_ours(os.path.join(arriving, name))
            put_in_place(os.path.join(arriving, name), folder)
        except OSError as e:
            error = str(e)
    shutil.rmtree(arriving, ignore_errors=True)
    say(out, own, error, count)
    rest.end(out)


def make_ours(new: str) -> None:
    """Leaves nothing of the sender's but files that its digest counts; nobody else can enter meanwhile."""
    conda_meta = os.path.join(new, "conda-meta")
    for folder in (new, *([conda_meta] if os.path.lexists(conda_meta) else [])):
        if os.path.islink(folder) or not os.path.isdir(folder):
            raise OSError(f"what arrived is refused: {os.path.basename(folder)} is no folder")
    for path, _, _, status in places_in(new):
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
            raise OSError(f"what arrived is refused: {path} is neither a file, a folder nor a link")
    dropped = [RECORDS, *(os.path.join("conda-meta", name) for name in SETTINGS)]
    for place in (os.path.join(new, name) for name in dropped):
        if os.path.isdir(place) and not os.path.islink(place):
            shutil.rmtree(place)
        elif os.path.lexists(place):
            os.unlink(place)
    close(new)
    if found := openings({path: status for path, _, _, status in places_in(new)}):
        raise OSError(f"what arrived is refused: {found[0]}")
    os.mkdir(os.path.join(new, RECORDS))
    with open(os.path.join(new, RECORDS, CLAIM), "x", encoding="utf-8") as stream:
        stream.write(UNFINISHED)


def put_in_place(new: str, folder: str) -> None:
    """What is there goes aside, whole: site.yml decides about it once the new one is proven."""
    aside = os.path.join(opened(folder), "previous")
    occupied = os.path.lexists(folder) and (os.path.islink(folder) or os.listdir(folder))
    if occupied:
        if why := refusal(folder):
            raise OSError(why)
        if os.path.lexists(aside):
            raise FileExistsError(f"{aside} is there already")
        os.rename(folder, aside)
    try:
        os.rename(new, folder)
    except OSError:
        if occupied:
            os.rename(aside, folder)
        raise


ACTIONS: dict[str, Callable[..., None]] = {"ask": ask, "send": send, "receive": receive}
ACTIONS[sys.argv[2]](*sys.argv[3:])
