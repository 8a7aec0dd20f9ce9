"""Sends a folder through a chain of nodes: each unpacks it and hands it on, so that the first sends it once.

    python3 -c 'import sys; exec(sys.argv[1])' THIS_TEXT ask NODE...              which of them it reaches
    python3 -c 'import sys; exec(sys.argv[1])' THIS_TEXT send FOLDER NODE...      on the node that has it

What arrives is unpacked beside the folder and takes its place only when it came to its end; what was there
is then `.NAME.previous`, which is never deleted here. That nothing was altered on the way is ssh's part, and
equal digests of all nodes are compared afterwards. A node that fails hands it on all the same; one whose
connection breaks ends the chain; one where processes run from the folder refuses it. Prints a line of JSON
for each node: node, ok, error, bytes. Needs the standard library, ssh and tar, and module_utils/running.py
before this text.
"""

import contextlib
import fcntl
import json
import os
import shlex
import shutil
import struct
import subprocess
import sys

CHUNK_BYTES = 1 << 20
HEADER = struct.Struct("!I")
F_SETPIPE_SZ = 1031  # fcntl(2); the module names it from Python 3.10 on
TAR = ("tar", "--blocking-factor=2048")
# Who receives it takes bytecode away, and Python makes it again: it differs, so no digest speaks for it.
LEFT_OUT = "--exclude=__pycache__"
SSH = (
    *("ssh", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "ConnectTimeout=5"),
    *("-o", "Compression=no", "-o", "Ciphers=^aes128-gcm@openssh.com", "-o", "ServerAliveInterval=15"),
)
PROGRAM = sys.argv[1]


def say(node, error, count):
    sys.stdout.write(json.dumps({"node": node, "ok": not error, "error": error, "bytes": count}) + "\n")
    sys.stdout.flush()


def widen(pipe):
    """Gives a pipe a MiB, not 64 KiB: the programs take turns less often, which is a fourth of the time."""
    with contextlib.suppress(OSError):
        fcntl.fcntl(pipe, F_SETPIPE_SZ, CHUNK_BYTES)


class Next:
    """The rest of the chain; nothing where there is none."""

    def __init__(self, folder, nodes):
        self.node, self.process = (nodes or [None])[0], None
        if nodes:
            words = ["python3", "-c", "import sys; exec(sys.argv[1])", PROGRAM, "receive", folder, *nodes]
            command = [*SSH, self.node, shlex.join(words)]
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            widen(self.process.stdin)

    def send(self, data):
        """One frame; a chain that has broken is left alone."""
        if self.process and self.process.stdin:
            try:
                self.process.stdin.write(HEADER.pack(len(data)))
                self.process.stdin.write(data)
            except OSError:
                self.process.stdin = None

    def end(self):
        """Hands on what the rest of the chain says."""
        if not self.process:
            return
        if self.process.stdin:
            with contextlib.suppress(OSError):
                self.process.stdin.close()
        said = self.process.stdout.read().decode(errors="replace")
        status = self.process.wait()
        sys.stdout.write(said)
        if self.node not in said:
            say(self.node, f"the connection to it ended with status {status}", 0)


def ask(*nodes):
    """All at once; a node must let this one in, and have what a relay needs."""
    command = "command -v python3 tar"
    asked = {node: subprocess.Popen([*SSH, node, command], stdout=subprocess.DEVNULL) for node in nodes}
    for node, process in asked.items():
        status = process.wait()
        say(node, f"ssh ended with status {status}" if status else "", 0)


def send(folder, *nodes):
    rest = Next(folder, nodes)
    parent, name = os.path.split(folder)
    tar = subprocess.Popen([*TAR, LEFT_OUT, "-C", parent, "-cf", "-", name], stdout=subprocess.PIPE)
    widen(tar.stdout)
    while True:
        data = tar.stdout.read(CHUNK_BYTES)
        if not data:
            break
        rest.send(data)
    # An empty frame ends the stream; without it, it was cut off.
    if tar.wait() == 0:
        rest.send(b"")
    rest.end()


def frame(stream):
    header = stream.read(HEADER.size)
    if len(header) < HEADER.size:
        raise OSError("the stream was cut off")
    (length,) = HEADER.unpack(header)
    data = stream.read(length)
    if len(data) < length:
        raise OSError("the stream was cut off")
    return data


def receive(folder, *nodes):
    own, rest = nodes[0], Next(folder, nodes[1:])
    parent, name = os.path.split(folder)
    arriving = os.path.join(parent, f".{name}.relay")
    shutil.rmtree(arriving, ignore_errors=True)
    count, error, tar = 0, "", None
    try:
        os.makedirs(arriving)
        tar = subprocess.Popen(
            [*TAR, "-C", arriving, "-xf", "-"], stdin=subprocess.PIPE, stderr=subprocess.PIPE
        )
        widen(tar.stdin)
    except OSError as e:
        error = str(e)
    widen(sys.stdin)
    try:
        while True:
            data = frame(sys.stdin.buffer)
            rest.send(data)
            if not data:
                break
            count += len(data)
            if not error:
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
            put_in_place(os.path.join(arriving, name), folder)
        except OSError as e:
            error = str(e)
    shutil.rmtree(arriving, ignore_errors=True)
    say(own, error, count)
    rest.end()


def put_in_place(new, folder):
    """What is there goes aside, whole: site.yml decides about it once the new one is proven."""
    parent, name = os.path.split(folder)
    aside = os.path.join(parent, f".{name}.previous")
    occupied = os.path.lexists(folder) and (os.path.islink(folder) or os.listdir(folder))
    if occupied:
        if why := refusal(folder):  # noqa: F821
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


{"ask": ask, "send": send, "receive": receive}[sys.argv[2]](*sys.argv[3:])
