"""Runs on a node, by its own Python 3: writes what a mounted ext4's blocks in use hold to standard output.

The file system is frozen meanwhile. Records of offset and length (both uint64, big-endian) and that many
bytes; the last one has length 0, and its offset is the disk's size. Free blocks, in which deleted secrets may
lie, are left out.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from typing import IO

CHUNK = 1 << 20
ZEROS = bytes(CHUNK)


def source_of(mount_path: str) -> str:
    words = ["findmnt", "--noheadings", "--output", "SOURCE", mount_path]
    return subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def freeze(mount_path: str) -> subprocess.Popen[bytes]:
    """Freezes; the returned process thaws as soon as this one ends, however it ends."""
    os.sync()
    words = ["sh", "-c", 'cat >/dev/null; fsfreeze --unfreeze "$1"', "thaw", mount_path]
    thaw = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True)
    subprocess.run(["fsfreeze", "--freeze", mount_path], check=True)
    return thaw


def send(image: IO[bytes], out: IO[bytes]) -> None:
    offset = 0
    while chunk := image.read(CHUNK):
        if chunk != ZEROS[: len(chunk)]:
            out.write(struct.pack(">QQ", offset, len(chunk)))
            out.write(chunk)
        offset += len(chunk)
    out.write(struct.pack(">QQ", offset, 0))
    out.flush()


def main(mount_path: str) -> int:
    """Status of e2image, which knows the blocks in use."""
    source = source_of(mount_path)
    subprocess.run(["blockdev", "--flushbufs", source], check=True)
    thaw = freeze(mount_path)
    try:
        words = ["e2image", "-r", "-a", "-f", source, "-"]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as image:
            assert image.stdout
            send(image.stdout, sys.stdout.buffer)
        return image.returncode
    finally:
        thaw.communicate()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
