"""Runs the smoke test on a node over ssh, and fetches its result."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping, Sequence
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
    """A test that ended: the status for the caller, its result where it wrote one, and what it printed.

    `formats` holds the result in the other formats that were asked for, by their names.
    """

    exit_code: int
    result: SmokeResult | None
    printed: str
    seconds: float
    formats: Mapping[str, str]


def run_smoke(
    machine: Machine,
    options: Sequence[str],
    *,
    limit_seconds: float,
    on_line: Callable[[str], None],
    formats: Sequence[str] = (),
) -> Ended:
    """Runs the test from one node on all nodes of its hostfile.

    Args:
        formats: junit, prometheus, html.

    Raises:
        BadInput: the node is no node of a cluster yet.
        CommandFailed: the node cannot be reached.
    """
    folder = f"/tmp/clusterwright-smoke-{secrets.token_hex(6)}"
    wanted = [word for name in ("json", *formats) for word in (f"--{name}", f"{folder}/{name}")]
    python, user = _python_and_user(machine)
    words = (python, "-P", "-m", "runtime", "smoke", *wanted, *options)
    limited = ("timeout", "--kill-after=5", f"{limit_seconds:.0f}", "env", "COLUMNS=110", *words)
    finished = ssh.run(
        machine,
        ("sh", "-c", _JOINED, "smoke", *limited),
        timeout_seconds=limit_seconds + _SSH_SECONDS,
        on_line=on_line,
        check=False,
        user=user,
    )
    written = {name: _fetched(machine, f"{folder}/{name}") for name in ("json", *formats)}
    ssh.run(machine, ("rm", "-rf", folder), timeout_seconds=_SSH_SECONDS, check=False)
    result = parse(written.pop("json"))
    return Ended(
        exit_code=exit_code(finished.returncode, result),
        result=result,
        printed=finished.stdout,
        seconds=finished.seconds,
        formats={name: text for name, text in written.items() if text},
    )


def _fetched(machine: Machine, path: str) -> str:
    """A file of the node; empty where the test did not come to write it."""
    return ssh.run(machine, ("cat", path), timeout_seconds=_SSH_SECONDS, check=False).stdout


def _python_and_user(machine: Machine) -> tuple[str, str]:
    """The interpreter of the environment and the cluster's user, as the node's description has them."""
    try:
        text = ssh.run(machine, ("cat", _DESCRIPTION), timeout_seconds=_SSH_SECONDS, check=False).stdout
        described = json.loads(text)
        return f"{described['environment']['prefix']}/bin/python", described["user"]
    except (ValueError, KeyError) as e:
        raise BadInput(
            f"run the smoke test on {machine.name}",
            found=f"{_DESCRIPTION} is not there or damaged",
            fix="ansible-playbook playbooks/site.yml -i the inventory",
        ) from e
