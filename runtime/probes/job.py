"""What a node finds out about itself before a job starts: no torch is imported, nothing is changed."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path

from runtime.edges import addresses, private_files
from runtime.edges.addresses import AddressOrNone, PortOrNone
from runtime.probes.environment import Environment, compared, environment_digest
from runtime.untrusted.conform import Lines


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the launcher asks of every node alike, but for `node_rank`.

    `compares`: whether the environment's files are compared with its record, which a certificate counts on.
    """

    node_rank: int
    master: str
    kind: str
    program: str
    cwd: str
    job_path: str
    certificate_path: str
    compares: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """One node's answer; empty text stands for "there is none".

    `address` is the own address that packets to the first node leave from, `interface` the one that holds it.
    `program_digest` is the sha256 of the script, empty where the program is no file of this node. `network`
    tells machines apart: the kernel's boot and the network namespace, which a container has of its own.
    `master_port` is the port that the first node holds for the job, 0 where it got none.
    `certificate` is the text of the smoke test's, `environment` the digest of what lies there now, or, where
    nobody asked for that, of what role conda_env wrote; `changed` says what is not as it was recorded.
    """

    hostname: str
    network: str
    python: str
    torch: str
    clusterwright: str
    has_cwd: bool
    has_program: bool
    program_digest: str
    job_path_problem: str
    master_address: AddressOrNone
    owns_master: bool
    master_port: PortOrNone
    address: AddressOrNone
    interface: str
    certificate: Lines = ""
    environment: str = ""
    changed: Lines = ""


def observe(request: Request, *, master_port: int = 0) -> Facts:
    """Looks at this node, which holds that port for the job."""
    master = addresses.resolve(request.master)
    owns = addresses.is_own(master)
    address = master if owns else addresses.source_towards(master) if master else ""
    program = _program_file(request)
    config_path = Path(request.certificate_path).parent
    environment = (
        compared(config_path) if request.compares else Environment(digest=environment_digest(config_path))
    )
    return Facts(
        hostname=socket.gethostname(),
        network=_network(),
        python=platform.python_version(),
        torch=torch_version(),
        clusterwright=clusterwright_version(),
        has_cwd=os.path.isdir(request.cwd) and os.access(request.cwd, os.X_OK),
        has_program=program is not None,
        program_digest=_digest(program) if program else "",
        job_path_problem=_job_path_problem(Path(request.job_path)),
        master_address=master,
        owns_master=owns,
        master_port=master_port,
        address=address,
        interface=addresses.interface_of(address),
        certificate=_text(Path(request.certificate_path)),
        environment=environment.digest,
        changed=environment.changed,
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def torch_version() -> str:
    """The version of the torch that this Python would import, read without that import (1.6 s)."""
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        return ""
    try:
        text = (Path(found.origin).parent / "version.py").read_text()
    except OSError:
        return ""
    match = re.search(r"^__version__\s*=\s*['\"]([^'\"]+)", text, re.MULTILINE)
    return match[1] if match else ""


def _network() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {os.readlink('/proc/self/ns/net')}"


def clusterwright_version() -> str:
    """The version and a digest of this package's own sources: two builds of one version differ too."""
    digest = hashlib.sha256()
    root = Path(__file__).parents[1]
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    try:
        version = importlib.metadata.version("clusterwright")
    except importlib.metadata.PackageNotFoundError:
        version = "not installed"
    return f"{version} (sources {digest.hexdigest()[:12]})"


def _program_file(request: Request) -> Path | None:
    """The file that would run; a module's is searched by Python itself and stands for itself here."""
    if request.kind == "module":
        return Path()
    path = Path(request.cwd) / request.program
    if request.kind == "program" and "/" not in request.program:
        found = shutil.which(request.program)
        return Path(found) if found else None
    return path if os.path.isfile(path) and os.access(path, os.R_OK) else None


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if os.path.isfile(path) else ""


def _job_path_problem(path: Path) -> str:
    """Why the job's folder could not be made; empty when it could."""
    parent = path
    while not os.path.exists(parent):
        parent = parent.parent
    if not os.path.isdir(parent):
        return f"{parent} is not a folder"
    if found := private_files.stranger_above(path):
        return found
    return "" if os.access(parent, os.W_OK | os.X_OK) else f"{parent} is not writable"
