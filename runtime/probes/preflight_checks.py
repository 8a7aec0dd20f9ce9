"""From what the nodes answered to the reasons why a job cannot start: pure, every node at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from runtime.job.argv import CONNECT_SECONDS
from runtime.job.spec import Job
from runtime.probes.finding import ranks_text
from runtime.probes.job import Facts

# Scripts of root are not for the user of jobs.
_PLACE = "Its user has the folder jobs/USER on the data disk, and a home on each node."


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Why one node, or the way between two, cannot take part. `ranks` are those that it would have held."""

    check: str
    host: str
    ranks: tuple[int, ...]
    found: str
    fix: str

    @property
    def where(self) -> str:
        """The node with its ranks, for a person."""
        return f"{self.host} ({ranks_text(self.ranks)})"

    def __str__(self) -> str:
        return f"{self.where}: {self.found}. {self.fix}"


def ranks_of(job: Job) -> dict[str, tuple[int, ...]]:
    """The ranks that each node holds."""
    held: dict[str, tuple[int, ...]] = {}
    first = 0
    for node in job.nodes:
        held[node.host.name] = tuple(range(first, first + len(node.slots)))
        first += len(node.slots)
    return held


def judge(job: Job, facts: Mapping[str, Facts]) -> tuple[Problem, ...]:
    """Everything that keeps the nodes which answered from running the job together."""
    held = ranks_of(job)

    def problem(check: str, host: str, found: str, fix: str) -> Problem:
        return Problem(check=check, host=host, ranks=held[host], found=found, fix=fix)

    found: list[Problem] = []
    for host, seen in facts.items():
        found += [problem(check, host, what, fix) for check, what, fix in _alone(job, host, seen)]
    for check, host, what, fix in _together(job, facts):
        found.append(problem(check, host, what, fix))
    return tuple(found)


def _alone(job: Job, host: str, facts: Facts) -> Iterator[tuple[str, str, str]]:
    """What one node's facts say by themselves: check, finding, fix."""
    if not facts.torch:
        yield "torch", f"{job.python} has no torch", "Run the role conda_env, or pass --python."
    if not facts.has_cwd:
        found = f"there is no folder {job.cwd} that the user of the job may enter"
        yield "folder", found, f"Deliver the code to the same path on every node. {_PLACE}"
    elif not facts.has_program:
        found = f"there is no {job.words[0]} in {job.cwd} that the user of the job may read"
        yield "program", found, f"Deliver the code to every node. {_PLACE}"
    if facts.job_path_problem:
        yield (
            "job folder",
            f"{job.job_path} cannot be made, {facts.job_path_problem}",
            "Pass another --log-dir: a folder in one of your own, such as your home.",
        )
    master = master_name(job)
    if not facts.master_address:
        yield "names", f"the name {master} has no address there", "Run the role host_names."
    elif not facts.address:
        yield "route", f"there is no route to {master} ({facts.master_address})", "See `ip route` there."
    if host == job.nodes[0].host.name:
        yield from _first(job, facts)


def _first(job: Job, facts: Facts) -> Iterator[tuple[str, str, str]]:
    """What the node of rank 0 must offer the others."""
    if facts.master_address and not facts.owns_master:
        yield (
            "master address",
            f"{master_name(job)} is {facts.master_address}, which is no address of this node",
            "Rank 0 runs on the first node; --master-addr must be one of its addresses.",
        )
    elif not facts.master_port and job.master_port:
        fix = f"Leave --master-port out, or see `ss -ltnp sport = :{job.master_port}` there."
        yield "master port", f"port {job.master_port} is taken", fix
    elif not facts.master_port:
        yield (
            "master port",
            "no port is free",
            "See `ss -tan` and `sysctl net.ipv4.ip_local_port_range` there.",
        )


def master_name(job: Job) -> str:
    """The name or address of the node of rank 0, as the person wrote it."""
    return job.master_addr or job.nodes[0].host.name


def _together(job: Job, facts: Mapping[str, Facts]) -> Iterator[tuple[str, str, str, str]]:
    """The odd node out by majority, and names that mean different machines: check, host, finding, fix."""
    yield from odd_ones("torch", "has torch", {h: f.torch for h, f in facts.items() if f.torch})
    yield from odd_ones("clusterwright", "has clusterwright", {h: f.clusterwright for h, f in facts.items()})
    yield from odd_ones("python", "has Python", {h: _minor(f.python) for h, f in facts.items()})
    digests = {h: f.program_digest[:12] for h, f in facts.items() if f.program_digest}
    yield from odd_ones("program", f"has another {job.words[0]} (sha256", digests, close=")")
    resolved = {h: f.master_address for h, f in facts.items() if f.master_address}
    yield from odd_ones("names", f"resolves {master_name(job)} to", resolved)
    first = facts.get(job.nodes[0].host.name)
    for host, seen in facts.items():
        if first and seen.owns_master and seen.network != first.network:
            yield (
                "names",
                host,
                f"{master_name(job)} is {seen.master_address} there, an address of {host} itself",
                "Remove that line from /etc/hosts (role host_names), or give one of the two another address.",
            )


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def odd_ones(
    check: str, says: str, values: Mapping[str, str], close: str = ""
) -> Iterator[tuple[str, str, str, str]]:
    """Nodes whose value is not the majority's; where there is no majority, every node is named."""
    counted = Counter(values.values()).most_common()
    if len(counted) < 2:
        return
    value, count = counted[0]
    majority = value if count > len(values) / 2 else None
    for host, own in values.items():
        if own != majority:
            others = "; ".join(
                f"{other or 'none'}{close} on {', '.join(h for h, v in values.items() if v == other)}"
                for other, _ in counted
                if other != own
            )
            found = f"{says} {own or 'none'}{close}, against {others}"
            yield check, host, found, "Make the nodes equal (ansible-playbook playbooks/site.yml)."


def explain_silence(
    host: str, python: str, status: int | None, errors: Sequence[str]
) -> tuple[str, str, str]:
    """Check, finding and fix for a node whose channel ended, or said nothing, before it answered.

    Args:
        status: what ssh (or the local node process) ended with; None while it still runs.
        errors: what it wrote to standard error.
    """
    said = " ".join(errors[-3:]).strip()
    text = "\n".join(errors)
    if status is None:
        return "ssh", "gave no answer in time", f"Try `ssh {host} true`."
    if "Host key verification failed" in text or "HOST IDENTIFICATION HAS CHANGED" in text:
        fix = "If the machine was replaced on purpose, run the role ssh_trust; else find out who answers."
        return "host key", f"its host key was refused ({said})", fix
    if "Permission denied" in text:
        return "ssh", f"the login was refused ({said})", "Run the role ssh_trust."
    if "No module named" in text:
        return "runtime", f"{python} lacks clusterwright ({said})", "Run the role runtime."
    if status == 127 or "No such file or directory" in text:
        return "python", f"there is no {python} ({said})", "Run the role conda_env, or pass --python."
    if status == 255:
        why = said or f"no answer in {CONNECT_SECONDS} s"
        return "ssh", f"unreachable ({why})", f"Try `ssh {host} true`."
    return "node", f"its side ended with status {status} ({said})", f"Try `ssh {host} {python} -V`."
