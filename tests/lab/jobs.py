"""Jobs and faults on the nodes of a converged lab."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.lab.conftest import JOB_USER, LabUnderTest, as_user

HOSTFILE = "/etc/clusterwright/hostfile"
# Every process of a job or of a smoke test, but not the shell that looks for them.
LEFT_OVER = (
    r"pgrep -fc '[r]untime\.(launch|node)|[t]orch\.distributed\.run|[s]moke --sizes|[c]w_test' || true"
)


def python(lab: LabUnderTest) -> str:
    """The interpreter of the cluster's environment."""
    described: dict[str, Any] = json.loads(lab.out("te1", "cat /etc/clusterwright/cluster.json"))
    return f"{described['environment']['prefix']}/bin/python"


@dataclass(frozen=True, slots=True, kw_only=True)
class Smoke:
    """A smoke test that ended; `written_at` is when it had its result, in seconds of the nodes' clock."""

    returncode: int
    printed: str
    result: dict[str, Any]
    seconds: float
    written_at: float

    def told(self) -> str:
        """All findings in one text."""
        return "\n".join(finding["found"] for finding in self.result["findings"])


def smoke(lab: LabUnderTest, *words: str, timeout_seconds: float = 120) -> Smoke:
    """Runs the smoke test from te1 as the user of jobs, who gets a copy of the node's key to sign with."""
    key = f"install -m 600 -o {JOB_USER} /etc/ssh/ssh_host_ed25519_key /run/cw_key"
    smoke = f"{python(lab)} -P -m runtime smoke --json /tmp/smoke.json --key /run/cw_key"
    command = f"rm -f /tmp/smoke.json; {key}; {smoke}"
    started = time.monotonic()
    finished = lab.run("te1", f"{command} {shlex.join(words)}", timeout_seconds=timeout_seconds, check=False)
    seconds = time.monotonic() - started
    printed = finished.stdout + finished.stderr
    written = lab.run("te1", "stat -c %.9Y /tmp/smoke.json && cat /tmp/smoke.json", check=False).stdout
    assert written, printed
    written_at, _, result = written.partition("\n")
    return Smoke(
        returncode=finished.returncode,
        printed=printed,
        result=json.loads(result),
        seconds=seconds,
        written_at=float(written_at),
    )


def start(lab: LabUnderTest, command: str) -> int:
    """Starts a command on te1 as the user of jobs, its output in /tmp/out; its process id."""
    return int(lab.out("te1", f"{as_user(JOB_USER, command)} >/tmp/out 2>&1 </dev/null & echo $!"))


def wait_until(lab: LabUnderTest, node: str, test: str, timeout_seconds: float = 60) -> None:
    """Until a shell test holds on a node."""
    waiting = f"for i in $(seq {int(timeout_seconds * 10)}); do {test} && exit 0; sleep 0.1; done; exit 1"
    lab.run(node, waiting, timeout_seconds=timeout_seconds + 10)


def nothing_left(lab: LabUnderTest, timeout_seconds: float = 10) -> bool:
    """Whether every node is free of the job's processes before the time is over."""
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        if all(count == "0" for count in lab.out_of_all(LEFT_OVER)):
            return True
        time.sleep(0.3)
    return False


@contextmanager
def firewall(lab: LabUnderTest, node: str, *rules: str) -> Iterator[None]:
    """The rules at the node's input until the end of the block."""
    commands = [
        "nft add table inet cut",
        "nft add chain inet cut in '{ type filter hook input priority 0; }'",
    ]
    lab.run(node, " && ".join([*commands, *(f"nft add rule inet cut in {rule}" for rule in rules)]))
    try:
        yield
    finally:
        lab.run(node, "nft delete table inet cut")


ALL_BUT_SSH = ("iif lo accept", "tcp dport 22 accept", "tcp sport 22 accept", "drop")


def cut_off(lab: LabUnderTest, node: str, seconds: int) -> None:
    """Drops everything that reaches the node or leaves it, ssh too, for that time."""
    policy = "'{{ type filter hook {way} priority 0; policy drop; }}'"
    chains = [f"nft add chain inet cut {way} {policy.format(way=way)}" for way in ("input", "output")]
    script = "; ".join(["nft add table inet cut", *chains, f"sleep {seconds}", "nft delete table inet cut"])
    lab.run(node, f"systemd-run --quiet bash -c {shlex.quote(f'sleep 0.5; {script}')}")
    time.sleep(1)


def wait_for_ssh(lab: LabUnderTest, node: str, timeout_seconds: float = 120) -> None:
    """Until the node answers again."""
    deadline = time.monotonic() + timeout_seconds
    while lab.run(node, "true", check=False).returncode != 0:
        assert time.monotonic() < deadline, f"{node} does not answer"
        time.sleep(0.5)
