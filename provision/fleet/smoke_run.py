"""Runs the smoke test on a node over ssh, and fetches its result."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from provision.core.smoke_result import SmokeResult, exit_code, parse
from provision.edges import ssh
from provision.errors import BadInput
from provision.model import Machine

_DESCRIPTION = "/etc/clusterwright/cluster.json"
# Standard error joins the output, so that what the test says while it runs comes at once.
_JOINED = 'exec "$@" 2>&1'
_SSH_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A test that ended: the status for the caller, its result where it wrote one, and what it printed."""

    exit_code: int
    result: SmokeResult | None
    printed: str
    seconds: float


def run_smoke(
    machine: Machine, options: Sequence[str], *, limit_seconds: float, on_line: Callable[[str], None]
) -> Ended:
    """Runs the test from one node on all nodes of its hostfile.

    Raises:
        BadInput: the node is no node of a cluster yet.
        CommandFailed: the node cannot be reached.
    """
    path = f"/tmp/clusterwright-smoke-{secrets.token_hex(6)}.json"
    words = (_python(machine), "-P", "-m", "runtime", "smoke", "--json", path, *options)
    limited = ("timeout", "--kill-after=5", f"{limit_seconds:.0f}", "env", "COLUMNS=110", *words)
    finished = ssh.run(
        machine,
        ("sh", "-c", _JOINED, "smoke", *limited),
        timeout_seconds=limit_seconds + _SSH_SECONDS,
        on_line=on_line,
        check=False,
    )
    fetch = ("sh", "-c", 'cat "$1"; rm -f "$1"', "fetch", path)
    written = ssh.run(machine, fetch, timeout_seconds=_SSH_SECONDS, check=False).stdout
    result = parse(written)
    return Ended(
        exit_code=exit_code(finished.returncode, result),
        result=result,
        printed=finished.stdout,
        seconds=finished.seconds,
    )


def _python(machine: Machine) -> str:
    """The interpreter of the cluster's environment, as the node's description has it."""
    try:
        text = ssh.run(machine, ("cat", _DESCRIPTION), timeout_seconds=_SSH_SECONDS, check=False).stdout
        return f"{json.loads(text)['environment']['prefix']}/bin/python"
    except (ValueError, KeyError) as e:
        raise BadInput(
            f"run the smoke test on {machine.name}",
            found=f"{_DESCRIPTION} is not there or damaged",
            fix="ansible-playbook playbooks/site.yml -i the inventory",
        ) from e
