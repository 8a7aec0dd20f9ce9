"""What a stranger does and sees: connections that he asks for, and what passes the wires of this machine."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from contextlib import closing

# Asks for a connection as anybody would, and says what came of it.
CONNECT = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=2).close()
    print("connected")
except OSError as e:
    print(f"connect: {e}")
"""
CONNECTED = "connected"


def connect(address: str, port: int) -> str:
    """What this machine, which is no node, sees of a port."""
    words = [sys.executable, "-c", CONNECT, address, str(port)]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


class Wire(threading.Thread):
    """Counts the frames on this machine's interfaces, wires of nodes among them, that hold these words."""

    def __init__(self, words: bytes) -> None:
        super().__init__()
        self.words, self.frames, self.bytes, self.done = words, 0, 0, threading.Event()

    def run(self) -> None:
        every = 3  # ETH_P_ALL
        with closing(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(every))) as wire:
            wire.settimeout(0.2)
            while not self.done.is_set():
                try:
                    frame = wire.recv(1 << 16)
                except TimeoutError:
                    continue
                self.frames += self.words in frame
                self.bytes += len(frame)

    def __enter__(self) -> Wire:
        self.start()
        time.sleep(0.3)
        return self

    def __exit__(self, *_: object) -> None:
        time.sleep(0.5)
        self.done.set()
        self.join()
