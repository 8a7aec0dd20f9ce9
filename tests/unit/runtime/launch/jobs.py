"""Jobs for tests: te1 with two slots, te2 with one, or what a test changes of that."""

from __future__ import annotations

from typing import Any

from runtime.job.hostfile import Host
from runtime.job.selection import choose
from runtime.job.spec import Job
from runtime.probes.job import Facts

HOSTS = (Host(name="te1", slots=2), Host(name="te2", slots=1, user="root"))


def job(*, hosts: tuple[Host, ...] = HOSTS, include: str = "", **changes: Any) -> Job:
    values: dict[str, Any] = {
        "job_id": "j1",
        "nodes": choose(hosts, include=include),
        "kind": "script",
        "words": ("train.py", "--lr", "1e-4"),
        "cwd": "/data/code",
        "python": "/env/bin/python",
        "job_path": "/data/jobs/j1",
    }
    return Job(**values | changes)


def facts(**changes: Any) -> Facts:
    values: dict[str, Any] = {
        "hostname": "te",
        "network": "net1",
        "python": "3.11.7",
        "torch": "2.13.0",
        "clusterwright": "0.1.0 (sources aa)",
        "has_cwd": True,
        "has_program": True,
        "program_digest": "d" * 64,
        "job_path_problem": "",
        "master_address": "10.0.0.1",
        "owns_master": False,
        "master_port": 40000,
        "address": "10.0.0.2",
        "interface": "eth0",
    }
    return Facts(**values | changes)
