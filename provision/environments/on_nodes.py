"""Asks nodes what their environments are, in parallel; nothing is changed there."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml

from provision.edges import ssh
from provision.environments.comparison import Comparison, compare, unseen
from provision.errors import BadInput, CommandFailed
from provision.images.programs import with_module
from provision.model import Machine

_AT_ONCE = 32
_SECONDS = 600.0
_FILES = Path(__file__).parents[2] / "playbooks" / "roles" / "conda_env" / "files"


def digest_program() -> str:
    """environment_digest.py with its modules: the controller's own, since a node's may be somebody's."""
    program = (_FILES / "environment_digest.py").read_text()
    for name in ("environment_bytecode", "environment_hardening"):
        program = with_module(program, name, (_FILES / f"{name}.py").read_text())
    return program


def compared(
    machines: Sequence[Machine], *, prefix: str, ledger: Mapping[str, str], full: bool
) -> list[Comparison]:
    """Each node's environment; one that does not answer is among them, with why.

    Args:
        full: every file is read again, not only what was touched since.
    """
    options = ["--own", "--only-recorded", "--bytecode", *(["--full"] if full else [])]
    words = ("python3", "-c", digest_program(), "--prefix", prefix, *options)

    def ask(machine: Machine) -> Comparison:
        try:
            said = ssh.run(machine, words, timeout_seconds=_SECONDS).stdout
            return compare(machine.name, _report(said), prefix=prefix, ledger=ledger)
        except CommandFailed as e:
            return unseen(machine.name, e.found)
        except (ValueError, RecursionError):
            return unseen(machine.name, "it does not answer as asked")

    with ThreadPoolExecutor(min(_AT_ONCE, len(machines))) as pool:
        return list(pool.map(ask, machines))


def _report(said: str) -> Mapping[str, object]:
    report = json.loads(said)
    if not isinstance(report, dict):
        raise ValueError("it is no report")
    return report


def read_ledger(path: Path) -> dict[str, str]:
    """What the controller keeps (role conda_env): the digest of each environment, by its place and locks.

    Raises:
        BadInput: it is damaged.
    """
    why = "it holds something else"
    try:
        found = yaml.safe_load(path.read_text()) or {}
        if isinstance(found, dict) and all(isinstance(one, str) for one in (*found, *found.values())):
            return found
    except FileNotFoundError:
        return {}
    except OSError as e:
        why = str(e.strerror)
    except (UnicodeDecodeError, yaml.YAMLError):
        why = "it is no YAML"
    raise BadInput(
        f"read the digests of environments in {path}",
        found=why,
        fix="Mend it, or move it away: the next site.yml writes it anew where all nodes agree.",
    )
