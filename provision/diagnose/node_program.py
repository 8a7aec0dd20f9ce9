"""Runs on a node, by its own Python 3: prints the time, then what the node is, as JSON. Needs nothing else.

Words: the node's address, then each node's name.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import resource
import socket
import stat
import struct
import sys
import time
from pathlib import Path

_SIOCGIFADDR, _SIOCGIFMTU = 0x8915, 0x8921  # netdevice(7)
_CONFIG = Path("/etc/clusterwright")
_MOST_BYTES = 1 << 20


def _ask(interface: str, request: int) -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as question:
        return fcntl.ioctl(question, request, struct.pack("256s", interface.encode()[:15]))


def _addresses() -> dict[str, str]:
    found = {}
    for _, interface in socket.if_nameindex():
        try:
            found[interface] = socket.inet_ntoa(_ask(interface, _SIOCGIFADDR)[20:24])
        except OSError:  # it has none
            continue
    return found


def _resolve(name: str) -> str:
    try:
        return str(socket.getaddrinfo(name, None, socket.AF_INET)[0][4][0])
    except OSError:
        return ""


def _text(path: Path) -> str:
    """A regular file's text, up to a limit: the user of jobs may write there, a link or a pipe too."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return ""
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return ""
    with os.fdopen(descriptor, "rb") as stream:
        return stream.read(_MOST_BYTES).decode(errors="replace")


def _mapping(path: Path) -> dict[str, object]:
    try:
        found = json.loads(_text(path))
    except (ValueError, RecursionError, MemoryError):
        return {}
    return found if isinstance(found, dict) else {}


def _free(folder: str) -> int:
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


def _described(name: str, default: str) -> str:
    return str(_mapping(_CONFIG / "environment.json").get(name, default))


def _prefix() -> Path:
    return Path(_described("prefix", "/nonexistent"))


def _clusterwright() -> str:
    """From the name of the folder that pip made (PEP 376)."""
    found = next(_prefix().glob("lib/python3*/site-packages/clusterwright-*.dist-info"), None)
    return found.name[: -len(".dist-info")].partition("-")[2] if found else "none"


def _versions() -> dict[str, str]:
    torch = next(_prefix().glob("lib/python3*/site-packages/torch/version.py"), Path("/nonexistent"))
    version = re.search(r"^__version__\s*=\s*['\"]([^'\"]+)", _text(torch), re.MULTILINE)
    return {
        "kernel": os.uname().release,
        "environment digest": _described("digest", "none"),
        "torch": version[1] if version else "none",
        "processors": str(len(os.sched_getaffinity(0))),
    }


def look(address: str, names: list[str]) -> dict[str, object]:
    """What this node is."""
    addresses = _addresses()
    interface = next((name for name, own in addresses.items() if own == address), "")
    data = str(_mapping(_CONFIG / "cluster.json").get("data", "/data"))
    job = re.search(r"^GLOO_SOCKET_IFNAME=(\S+)", _text(_CONFIG / "job.env"), re.MULTILINE)
    return {
        "names": {name: _resolve(name) for name in names},
        "own": [own for name, own in addresses.items() if name != "lo"],
        "mtu": struct.unpack("i", _ask(interface, _SIOCGIFMTU)[16:20])[0] if interface else 0,
        "open_files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        "free": {folder: _free(folder) for folder in ("/", data, "/dev/shm") if Path(folder).is_dir()},
        "versions": _versions(),
        "job_interface": job[1] if job else "",
        "interface": interface,
        "certificate": _mapping(_CONFIG / "certificate.json").get("certificate"),
        "clusterwright": _clusterwright(),
    }


def main(words: list[str]) -> None:
    """The time first, so that the controller can tell how far the clock is off."""
    sys.stdout.write(f"{time.time()}\n")
    sys.stdout.flush()
    sys.stdout.write(json.dumps(look(words[0], words[1:])) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
