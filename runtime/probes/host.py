"""What a node says about itself beyond what a job needs: names, limits, disks, files, how fast it is."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import mmap
import os
import platform
import resource
import shutil
import socket
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from runtime.edges import addresses
from runtime.edges.addresses import AddressOrNone, InterfaceOrNone
from runtime.edges.process import complete
from runtime.errors import BadInput
from runtime.job.env_file import read_job_environment
from runtime.job.user import data_folder, jobs_folder
from runtime.probes import gpu, job_firewall
from runtime.probes.environment import DIGEST_SCRIPT, environment_digest
from runtime.probes.gpu import Gpus
from runtime.probes.job_firewall import Fence
from runtime.probes.mtu import interface_mtu
from runtime.untrusted.conform import Json, Only

# An unknown name costs a resolver's time-out, five seconds each where DNS does not answer (resolv.conf(5)).
_NAMES_SECONDS = 3.0
_BLOCK = bytes(1 << 16)
_RDMA = Path("/sys/class/infiniband")
_SHOWN_FILES = 3
_BLOCK_BYTES = 1 << 20
_MOST_BYTES = 256 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """One node's answer. Sizes in bytes; -1 stands for "no limit", 0 or "" for "there is none".

    `addresses_by_name` are all nodes' names as this node resolves them; `own_address` what its own host name
    means there; `free_bytes` by mount point, for those that exist; `environment` the digest that the role
    conda_env wrote; `cuda` and `nccl` the versions of what came with its torch; `job_interface` what jobs use
    by the node's job.env, `job_address` its address as
    "10.0.0.1/24"; `speed_bits` what a physical interface has negotiated, in bits a second; `rdma_ports`
    those that are active, such as "mlx5_0 port 1 (InfiniBand)". `probed` is what checks of the smoke test
    ask beyond that, by their ids; `unprobed` says why it could not be found out.
    """

    hostname: str
    own_address: AddressOrNone
    addresses_by_name: Mapping[str, AddressOrNone]
    interface: str
    job_interface: str
    job_address: InterfaceOrNone
    mtu: int
    speed_bits: int
    rdma: bool
    rdma_ports: Sequence[str]
    open_files: int
    locked_bytes: int
    shared_memory_free: int
    free_bytes: Annotated[Mapping[str, int], Only("by mount point, / among them", lambda free: "/" in free)]
    free_files: Mapping[str, int]
    kernel: str
    processors: int
    memory_bytes: int
    environment: str
    cuda: str
    nccl: str
    gpus: Gpus
    fence: Fence = field(default_factory=Fence)
    probed: Mapping[str, Json] = field(default_factory=dict)
    unprobed: Mapping[str, str] = field(default_factory=dict)


def survey(
    names: Sequence[str], *, own_address: str, config_path: str, probes: Mapping[str, Callable[[], Any]]
) -> Survey:
    """Looks at this node; `own_address` is the one that the cluster uses, `probes` what checks ask."""
    hostname = socket.gethostname()
    resolved = _resolve_all((hostname, *names))
    interface = addresses.interface_of(own_address)
    job_interface = _job_interface(Path(config_path, "job.env")) or interface
    probed, unprobed = _probe(probes)
    data = str(data_folder(Path(config_path, "cluster.json")))
    disks = {path: os.statvfs(path) for path in ("/", data) if Path(path).is_dir()}
    return Survey(
        hostname=hostname,
        own_address=resolved[hostname],
        addresses_by_name={name: resolved[name] for name in names},
        interface=interface,
        job_interface=job_interface,
        job_address=addresses.address_of(job_interface),
        mtu=interface_mtu(interface),
        speed_bits=_speed_bits(interface),
        rdma=any(_RDMA.glob("*")),
        rdma_ports=rdma_ports(_RDMA),
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        locked_bytes=resource.getrlimit(resource.RLIMIT_MEMLOCK)[0],
        shared_memory_free=shutil.disk_usage("/dev/shm").free if Path("/dev/shm").is_dir() else 0,
        free_bytes={path: disk.f_bavail * disk.f_frsize for path, disk in disks.items()},
        free_files={path: disk.f_favail for path, disk in disks.items() if disk.f_files},
        kernel=platform.release(),
        processors=len(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        environment=environment_digest(Path(config_path)),
        cuda=_library("cuda_runtime"),
        nccl=_library("nccl"),
        gpus=gpu.look(),
        fence=job_firewall.look(Path(config_path)),
        probed=probed,
        unprobed=unprobed,
    )


def _probe(probes: Mapping[str, Callable[[], Any]]) -> tuple[dict[str, Any], dict[str, str]]:
    """What each gives, and why others give nothing."""
    probed, unprobed = {}, {}
    for check, probe in probes.items():
        try:
            probed[check] = probe()
        except (OSError, ValueError) as e:
            unprobed[check] = str(e)
    return probed, unprobed


def _library(name: str) -> str:
    """The version of NVIDIA's wheel of that name (such as nvidia_nccl_cu12); empty where there is none."""
    installed = Path(sysconfig.get_path("purelib")).glob(f"nvidia_{name}*.dist-info")
    return next((folder.stem.rpartition("-")[2] for folder in installed), "")


def _job_interface(path: Path) -> str:
    """The one that job.env names exactly, for Gloo or (with `=`) for NCCL; empty where it names none."""
    try:
        variables = read_job_environment(path)
    except BadInput:
        return ""
    nccl = variables.get("NCCL_SOCKET_IFNAME", "")
    exact = nccl[1:] if nccl.startswith("=") else ""
    return (variables.get("GLOO_SOCKET_IFNAME") or exact).split(",")[0]


def _speed_bits(interface: str) -> int:
    """0 for a virtual interface, whose speed is a fiction, and where the driver does not say."""
    device = Path("/sys/class/net") / interface
    try:
        return max(0, int((device / "speed").read_text())) * 10**6 if (device / "device").exists() else 0
    except (OSError, ValueError):
        return 0


def rdma_ports(devices: Path) -> list[str]:
    """The active ports of RDMA devices (sysfs-class-infiniband): `state` reads "4: ACTIVE"."""
    found = []
    for port in sorted(devices.glob("*/ports/*")):
        try:
            state, layer = ((port / name).read_text().strip() for name in ("state", "link_layer"))
        except OSError:
            continue
        if state.endswith("ACTIVE"):
            found.append(f"{port.parents[1].name} port {port.name} ({layer})")
    return found


def _resolve_all(names: Sequence[str]) -> dict[str, str]:
    """All at once and for a bounded time: a name that is still unknown then has no address."""
    found: dict[str, str] = {}
    threads = [
        threading.Thread(target=lambda name=name: found.update({name: addresses.resolve(name)}), daemon=True)
        for name in dict.fromkeys(names)
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + _NAMES_SECONDS
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return {name: found.get(name, "") for name in names}


def compute_rate(seconds: float) -> float:
    """Bytes in a second that one thread hashes, by the wall clock: a throttled processor shows."""
    count, started = 0, time.perf_counter()
    while (passed := time.perf_counter() - started) < seconds:
        hashlib.sha256(_BLOCK).digest()
        count += 1
    return count * len(_BLOCK) / passed


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """How the environment of this Python differs from what the role conda_env installed.

    `different` counts its files, `first` names some ("changed lib/python3.11/copy.py");
    `known` is False where no role has installed it; `problem` says why nobody can tell.
    """

    known: bool
    different: int = 0
    first: Sequence[str] = ()
    problem: str = ""


def files(prefix: str, *, script: Path = DIGEST_SCRIPT, timeout_seconds: float) -> Files:
    """Looks at every file's status and reads those that were touched since; some tenths of a second."""
    if not script.is_file():
        return Files(known=False)
    ended = complete(
        [sys.executable, str(script), "--prefix", prefix, "--verify"], timeout_seconds=timeout_seconds
    )
    try:
        said = json.loads(ended.out)
    except json.JSONDecodeError:
        return Files(known=True, problem=ended.errors.strip()[-300:] or f"status {ended.status}")
    if not said["recorded"]:
        return Files(known=False)
    return Files(known=True, different=said["different"], first=said["differences"][:_SHOWN_FILES])


def job_disk() -> Path:
    """Where jobs write: their user's folder on the data disk, that disk, or /var/tmp where there is none."""
    data = data_folder()
    return jobs_folder() or (data if data.is_dir() else Path("/var/tmp"))


def write_rate(folder: Path, seconds: float) -> float:
    """Bytes in a second that reach the disk of a folder, over about that time; leaves nothing there.

    Raises:
        OSError: the folder takes no file, or the disk is full or broken.
    """
    descriptor, name = tempfile.mkstemp(prefix=".clusterwright-", dir=folder)
    try:
        os.unlink(name)
        _bypass_cache(descriptor)
        # Aligned as O_DIRECT wants it, and not zeros, which some disks do not write.
        with mmap.mmap(-1, _BLOCK_BYTES) as block:
            block.write(os.urandom(_BLOCK_BYTES))
            free = os.fstatvfs(descriptor)
            most = min(_MOST_BYTES, free.f_bavail * free.f_frsize // 4)
            written, started = 0, time.perf_counter()
            while time.perf_counter() - started < seconds and written <= most:
                written += os.write(descriptor, block)
            os.fdatasync(descriptor)
            return written / (time.perf_counter() - started)
    finally:
        os.close(descriptor)


def _bypass_cache(descriptor: int) -> None:
    """O_DIRECT (open(2)); tmpfs and some others do not know it."""
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_DIRECT)
    except OSError as e:
        if e.errno != errno.EINVAL:
            raise
