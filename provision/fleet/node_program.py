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
import struct
import sys
import time
from pathlib import Path

_SIOCGIFADDR, _SIOCGIFMTU = 0x8915, 0x8921  # netdevice(7)
_CONFIG = Path("/etc/clusterwright")


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
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _free(folder: str) -> int:
    stat = os.statvfs(folder)
    return stat.f_bavail * stat.f_frsize


def _described() -> dict[str, str]:
    found: dict[str, str] = json.loads(_text(_CONFIG / "environment.json") or "{}")
    return found


def _prefix() -> Path:
    return Path(_described().get("prefix", "/nonexistent"))


def _clusterwright() -> str:
    """From the name of the folder that pip made (PEP 376)."""
    found = next(_prefix().glob("lib/python3*/site-packages/clusterwright-*.dist-info"), None)
    return found.name[: -len(".dist-info")].partition("-")[2] if found else "none"


def _certificate() -> object:
    try:
        return json.loads(_text(_CONFIG / "certificate.json"))["certificate"]
    except (ValueError, KeyError, TypeError):
        return None


def _versions() -> dict[str, str]:
    described, prefix = _described(), _prefix()
    torch = next(prefix.glob("lib/python3*/site-packages/torch/version.py"), Path("/nonexistent"))
    version = re.search(r"^__version__\s*=\s*['\"]([^'\"]+)", _text(torch), re.MULTILINE)
    return {
        "kernel": os.uname().release,
        "environment digest": described.get("digest", "none"),
        "torch": version[1] if version else "none",
        "processors": str(len(os.sched_getaffinity(0))),
    }


def look(address: str, names: list[str]) -> dict[str, object]:
    """What this node is."""
    addresses = _addresses()
    interface = next((name for name, own in addresses.items() if own == address), "")
    job = re.search(r"^GLOO_SOCKET_IFNAME=(\S+)", _text(_CONFIG / "job.env"), re.MULTILINE)
    return {
        "names": {name: _resolve(name) for name in names},
        "own": [own for name, own in addresses.items() if name != "lo"],
        "mtu": struct.unpack("i", _ask(interface, _SIOCGIFMTU)[16:20])[0] if interface else 0,
        "open_files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        "free": {folder: _free(folder) for folder in ("/", "/data", "/dev/shm") if Path(folder).is_dir()},
        "versions": _versions(),
        "job_interface": job[1] if job else "",
        "interface": interface,
        "certificate": _certificate(),
        "clusterwright": _clusterwright(),
    }


def main(words: list[str]) -> None:
    """The time first, so that the controller can tell how far the clock is off."""
    sys.stdout.write(f"{time.time()}\n")
    sys.stdout.flush()
    sys.stdout.write(json.dumps(look(words[0], words[1:])) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
