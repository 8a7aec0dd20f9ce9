"""The first stage, judged: each node's survey by itself and against the others; no golden file. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_interface
from statistics import median

from runtime.edges.addresses import is_loopback
from runtime.probes.host import Files, Survey
from runtime.probes.preflight_checks import odd_ones
from runtime.smoke.network import matrix

# A rank opens sockets to each peer, files of data and shared memory; 1024 is what Linux gives without asking.
_OPEN_FILES = 1024
# What containers give where nobody asks for more, and too little for NCCL (NVIDIA's container guide).
_SHARED_MEMORY_BYTES = 64 << 20
_FREE_BYTES = 256 << 20
_FREE_FILES = 1000
# chrony keeps nodes within milliseconds; munge, TLS and the order of logs suffer from more than this.
_CLOCK_SECONDS = 0.5
_LEAST_SHARE = 0.9
# Disks of one kind differ by half, and a neighbour's writing costs as much again.
_LEAST_DISK_SHARE = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a check says against one node."""

    check: str
    host: str
    found: str
    fix: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """A node's clock against the launching machine's, in seconds, and how far off that may be."""

    offset: float
    error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """Bytes in a second that a node writes to the disk that jobs use, or why it cannot."""

    rate: float
    problem: str


def judge_hosts(surveys: Mapping[str, Survey], clocks: Mapping[str, Clock]) -> tuple[Said, ...]:
    """Everything that the surveys say against nodes."""
    alone = (said for host, survey in surveys.items() for said in _alone(host, survey, len(surveys)))
    together = (*_names(surveys), *_interfaces(surveys), *_versions(surveys), *_hardware(surveys))
    return (*alone, *together, *_clocks(clocks))


def _alone(host: str, seen: Survey, nodes: int) -> Iterator[Said]:
    """What needs no other node to be wrong; one machine alone may well call itself loopback."""
    if nodes > 1 and seen.interface != "lo" and seen.own_address and is_loopback(seen.own_address):
        found = f"its own name {seen.hostname} means {seen.own_address} there, which no other node can reach"
        yield Said(
            check="own name",
            host=host,
            found=found,
            fix="Remove that line from /etc/hosts (role host_names).",
        )
    if 0 <= seen.open_files < _OPEN_FILES:
        yield Said(
            check="open files",
            host=host,
            found=f"a process may open {seen.open_files} files there; ranks need {_OPEN_FILES} at least",
            fix="Run the role host_tuning (limits.conf: nofile), then log in again.",
        )
    if seen.rdma and seen.locked_bytes >= 0:
        yield Said(
            check="locked memory",
            host=host,
            found=f"it has an RDMA device, and a process may lock only {_size(seen.locked_bytes)}",
            fix="Run the role host_tuning (limits.conf: memlock unlimited), then log in again.",
        )
    if seen.shared_memory_free <= _SHARED_MEMORY_BYTES:
        yield Said(
            check="shared memory",
            host=host,
            found=f"/dev/shm has {_size(seen.shared_memory_free)} free; ranks of one node talk through it",
            fix="See `df -h /dev/shm` and `ls /dev/shm`; a container needs --shm-size or --ipc=host.",
        )
    yield from _disks(host, seen)


def _disks(host: str, seen: Survey) -> Iterator[Said]:
    for path, free in seen.free_bytes.items():
        if free < _FREE_BYTES:
            yield Said(
                check="disk",
                host=host,
                found=f"{path} has {_size(free)} free",
                fix=f"See `du -xh -d2 {path}`.",
            )
    for path, free in seen.free_files.items():
        if free < _FREE_FILES:
            found = f"{path} has room for {free} more files"
            yield Said(check="disk", host=host, found=found, fix=f"See `du -x --inodes -d2 {path}`.")


def _names(surveys: Mapping[str, Survey]) -> Iterator[Said]:
    """All nodes must mean the same by every name: the odd one out by majority."""
    for name in next(iter(surveys.values())).addresses_by_name if surveys else ():
        meant = {host: seen.addresses_by_name.get(name, "") for host, seen in surveys.items()}
        unknown = [host for host, address in meant.items() if not address]
        for host in unknown:
            yield Said(
                check="names",
                host=host,
                found=f"does not know the name {name}",
                fix="Run the role host_names.",
            )
        known = {host: address for host, address in meant.items() if address}
        for check, host, found, _ in odd_ones("names", f"resolves {name} to", known):
            yield Said(check=check, host=host, found=found, fix="Correct /etc/hosts there (role host_names).")


def _interfaces(surveys: Mapping[str, Survey]) -> Iterator[Said]:
    """Jobs that a node sends elsewhere than over the cluster's address: the others must be there as well.

    A second network for data is one that most nodes are in; a container engine's bridge has the same address
    on every node, or is the only one of its network.
    """
    addresses = {host: seen.job_address for host, seen in surveys.items() if seen.job_address}
    networks = Counter(str(ip_interface(address).network) for address in addresses.values())
    usual = {network for network, count in networks.items() if count > len(surveys) / 2}
    for host, seen in surveys.items():
        if not seen.job_interface or seen.job_interface == seen.interface:
            continue
        same = [
            other for other, address in addresses.items() if other != host and address == seen.job_address
        ]
        if not seen.job_address:
            why = "which is not there, or has no address"
        elif same:
            why = f"whose address {seen.job_address} {', '.join(same)} has as well"
        elif usual and str(ip_interface(seen.job_address).network) not in usual:
            why = f"at {seen.job_address}; those of the others are in {', '.join(usual)}"
        else:
            continue
        yield Said(
            check="interface",
            host=host,
            found=f"jobs use the interface {seen.job_interface} there, {why}",
            fix="Run the role collective_network, or correct /etc/clusterwright/job.env there.",
        )


def changed_files(files: Mapping[str, Files]) -> Iterator[Said]:
    """Nodes whose environment is not what was installed, or where nobody can tell."""
    recorded = any(seen.known for seen in files.values())
    for host, seen in files.items():
        if recorded and not seen.known:
            found = "it has no record of what was installed, as the others have"
        elif seen.problem:
            found = f"whether its environment is as installed cannot be told: {seen.problem}"
        elif seen.different:
            rest = f" and {seen.different - len(seen.first)} more" * (seen.different > len(seen.first))
            found = f"files of its environment differ from what was installed: {', '.join(seen.first)}{rest}"
        else:
            continue
        yield Said(check="files", host=host, found=found, fix="Run the role conda_env, which builds it anew.")


def _versions(surveys: Mapping[str, Survey]) -> Iterator[Said]:
    """The odd node out by majority vote."""
    votes: dict[str, tuple[str, Callable[[Survey], str]]] = {
        "environment": ("has the environment", lambda seen: seen.environment[:12]),
        "cuda": ("has CUDA", lambda seen: seen.cuda),
        "nccl": ("has NCCL", lambda seen: seen.nccl),
        "kernel": ("runs Linux", lambda seen: ".".join(seen.kernel.split(".")[:2])),
        # Where a wrong name leads a node to its loopback, the name is the fault, not the loopback's MTU.
        "mtu": ("sends packets of", lambda seen: str(seen.mtu or "") if seen.interface != "lo" else ""),
    }
    for check, (says, value_of) in votes.items():
        values = {host: value for host, seen in surveys.items() if (value := value_of(seen))}
        for _, host, found, fix in odd_ones(check, says, values):
            yield Said(check=check, host=host, found=found, fix=_VERSION_FIXES.get(check, fix))


_VERSION_FIXES = {
    "mtu": "Give all interfaces, and the switch between them, one MTU (`ip link set IF mtu N`)."
}


def _hardware(surveys: Mapping[str, Survey]) -> Iterator[Said]:
    """Fewer processors or less memory than the others have: a part has failed or is withheld."""
    measures: dict[str, Callable[[Survey], int]] = {
        "processors": lambda seen: seen.processors,
        "bytes of memory": lambda seen: seen.memory_bytes,
    }
    for words, value_of in measures.items():
        values = {host: value_of(seen) for host, seen in surveys.items()}
        usual = median(values.values()) if values else 0
        for host, value in values.items():
            if value < _LEAST_SHARE * usual:
                found = f"has {value} {words}, the others {usual:.0f}"
                yield Said(
                    check="hardware", host=host, found=found, fix="See `lscpu`, `free -h` and `dmesg` there."
                )


def _clocks(clocks: Mapping[str, Clock]) -> Iterator[Said]:
    """Against the median of all, by more than the way of the question can explain."""
    usual = median(clock.offset for clock in clocks.values()) if clocks else 0.0
    for host, clock in clocks.items():
        off = clock.offset - usual
        if abs(off) - clock.error > _CLOCK_SECONDS:
            found = (
                f"its clock is {abs(off):.1f} s {'ahead' if off > 0 else 'behind'} (+-{clock.error:.3f} s)"
            )
            yield Said(
                check="clock", host=host, found=found, fix="See `chronyc tracking` there (role time_sync)."
            )


def slow_processors(rates: Mapping[str, float]) -> Iterator[Said]:
    """Nodes whose processor does much less than the others' do."""
    for host in sorted(matrix.slow_nodes(rates)):
        others = median(rate for other, rate in rates.items() if other != host)
        found = (
            f"its processor hashes {matrix.rate_text(rates[host])}, the others' {matrix.rate_text(others)}"
        )
        fix = "See `top` and `cat /sys/fs/cgroup/cpu.stat`; clocks with `lscpu -e=cpu,mhz` there."
        yield Said(check="compute", host=host, found=found, fix=fix)


def slow_disks(disks: Mapping[str, Written]) -> Iterator[Said]:
    """Nodes whose disk takes no writes, or takes them much more slowly than the others' do."""
    rates = {host: one.rate for host, one in disks.items() if not one.problem}
    for host, one in disks.items():
        others = [rate for other, rate in rates.items() if other != host]
        if one.problem:
            found, fix = f"cannot write to {one.problem}", "See `findmnt`, `ls -ld` and `dmesg` there."
        elif len(others) >= 2 and one.rate < _LEAST_DISK_SHARE * (usual := median(others)):
            found = f"its disk writes {matrix.rate_text(one.rate)}, the others' {matrix.rate_text(usual)}"
            fix = "See `iostat -x 1` (who else writes?), `dmesg` and the quota of the disk there."
        else:
            continue
        yield Said(check="disk write", host=host, found=found, fix=fix)


def evidence(
    surveys: Mapping[str, Survey], clocks: Mapping[str, Clock], files: Mapping[str, Files]
) -> dict[str, str]:
    """What the checks saw where they found nothing, by their identity."""
    seen = list(surveys.values())
    if not seen:
        return {}
    first = seen[0]
    offsets = [clock.offset for clock in clocks.values()]
    return {
        "host.environment": f"digest {first.environment[:12]} on all {len(seen)} nodes",
        "host.files": f"as installed on {sum(one.known for one in files.values())} nodes",
        "host.interface": f"jobs use {first.job_interface} ({first.job_address})",
        "host.cuda": f"CUDA {first.cuda} on all nodes",
        "host.nccl": f"NCCL {first.nccl} on all nodes",
        "host.kernel": f"Linux {first.kernel}",
        "host.names": f"{len(first.addresses_by_name)} names mean the same on {len(seen)} nodes",
        "host.own-name": "no node calls itself by a loopback address",
        "host.clock": f"within {max(offsets) - min(offsets):.3f} s" if offsets else "not asked",
        "host.mtu": f"{first.mtu} bytes on {first.interface}",
        "host.open-files": f"{min(one.open_files for one in seen)} at least",
        "host.locked-memory": "unlimited",
        "host.shared-memory": f"{_size(min(one.shared_memory_free for one in seen))} free at least",
        "host.disk": f"{_size(min(min(one.free_bytes.values()) for one in seen))} free at least",
        "host.hardware": f"{first.processors} processors, {_size(first.memory_bytes)} of memory",
    }


def not_applicable(surveys: Mapping[str, Survey], files: Mapping[str, Files]) -> dict[str, str]:
    """Checks that have no object on these nodes, with the reason."""
    reasons = {}
    if not any(seen.rdma for seen in surveys.values()):
        reasons["host.locked-memory"] = "no RDMA device on any node"
    if not any(seen.environment for seen in surveys.values()):
        reasons["host.environment"] = "no node has an environment.json (role conda_env)"
    if not any(seen.cuda for seen in surveys.values()):
        reasons["host.cuda"] = "no node's torch came with CUDA"
    if not any(seen.nccl for seen in surveys.values()):
        reasons["host.nccl"] = "no node's torch came with NCCL"
    if not any(seen.known for seen in files.values()):
        reasons["host.files"] = "no node has a record of what was installed (role conda_env)"
    if not any(seen.job_address for seen in surveys.values()):
        reasons["host.interface"] = "no node's interface for jobs has an IPv4 address"
    return reasons


def _size(count: int) -> str:
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count} B"
