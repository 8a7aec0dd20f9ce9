"""Runs the smoke test on a node over ssh, and fetches its result."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from provision.edges import ssh, ssh_signature
from provision.errors import BadInput
from provision.model import Machine
from provision.smoke.certificate import NAMESPACE, sealed, to_sign
from provision.smoke.result import PASSED, SmokeResult, exit_code, parse

_DESCRIPTION = "/etc/clusterwright/cluster.json"
# Standard error joins the output, so that what the test says while it runs comes at once.
_JOINED = 'exec "$@" 2>&1'
_SSH_SECONDS = 30.0
_CERTIFY_SECONDS = 120.0
_VALID_DAYS = 7.0


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Signing:
    """With what the controller signs, and for which nodes: those of its inventory."""

    key: Path
    nodes: Collection[str]


def run_smoke(
    machine: Machine,
    options: Sequence[str],
    *,
    limit_seconds: float,
    on_line: Callable[[str], None],
    formats: Sequence[str] = (),
    signing: Signing | None = None,
) -> Ended:
    """Runs the test from one node on all nodes of its hostfile; there root goes on as the user of jobs.

    Args:
        formats: junit, prometheus, html.
        signing: None leaves it to the node to sign what passed.

    Raises:
        BadInput: the node is no node of a cluster yet.
        CommandFailed: the node cannot be reached.
    """
    folder = f"/tmp/clusterwright-smoke-{secrets.token_hex(6)}"
    wanted = [word for name in ("json", *formats) for word in (f"--{name}", f"{folder}/{name}")]
    python, user = _python_and_user(machine)
    words = (python, "-P", "-m", "runtime", "smoke", *wanted, *options)
    words = (*words, "--for-controller", "--valid-days", f"{_VALID_DAYS:g}") if signing else words
    limited = ("timeout", "--kill-after=5", f"{limit_seconds:.0f}", "env", "COLUMNS=110", *words)
    finished = ssh.run(
        machine,
        ("sh", "-c", _JOINED, "smoke", *limited),
        timeout_seconds=limit_seconds + _SSH_SECONDS,
        on_line=on_line,
        check=False,
    )
    written = {name: _fetched(machine, f"{folder}/{name}", user) for name in ("json", *formats)}
    ssh.run(machine, ("rm", "-rf", folder), timeout_seconds=_SSH_SECONDS, check=False)
    result = parse(written.pop("json"))
    status = exit_code(finished.returncode, result)
    if signing and result and status == PASSED:
        _certify(machine, result, signing, python=python)
    return Ended(
        exit_code=status,
        result=result,
        printed=finished.stdout,
        seconds=finished.seconds,
        formats={name: text for name, text in written.items() if text},
    )


def _certify(machine: Machine, result: SmokeResult, signing: Signing, *, python: str) -> None:
    """Signs what the nodes are to hold, and has them hold it."""
    now = datetime.now(UTC)
    payload = to_sign(result.document, nodes=signing.nodes, valid_days=_VALID_DAYS, now=now)
    if not payload:
        return
    signature = ssh_signature.sign(payload, key=signing.key, namespace=NAMESPACE)
    words = (python, "-P", "-m", "runtime", "certify", sealed(payload, signature))
    ssh.run(machine, words, timeout_seconds=_CERTIFY_SECONDS)


def _fetched(machine: Machine, path: str, user: str) -> str:
    """A file of the user of jobs, read with its rights; empty where the test did not come to write it."""
    return ssh.run(
        machine, ("runuser", "-u", user, "--", "cat", path), timeout_seconds=_SSH_SECONDS, check=False
    ).stdout


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
