"""Looks at every node of a site, in parallel, and at the controller's own secrets: nothing is changed."""

from __future__ import annotations

import json
import stat
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from provision.audit.findings import Answer, Expected, Finding, judge, key_in, unheard
from provision.edges import ssh
from provision.edges.public_keys import public_keys
from provision.errors import BadInput, CommandFailed
from provision.inventory.site import read_whole
from provision.model import Machine
from provision.roles.cluster_nodes import ENVIRONMENT_VARIABLES, environment_prefix, nodes_of
from provision.roles.ssh_trust.cluster_key import authorised_line
from provision.roles.wireguard_mesh import KEY, PORT

_AT_ONCE = 32
_SECONDS, _KEYS_SECONDS = 600.0, 30.0
_SHOWN = 80
# On nodes; those of the controller are all that lies in its folder.
_SECRETS = (
    "/etc/ssh/ssh_host_*_key",
    "/var/lib/clusterwright/journal.json",
    "/etc/clusterwright/join.json",
    "/run/clusterwright/join.json",
    KEY,
)
_PUBLIC = (".pub", ".yml")
_VARIABLES = (
    *ENVIRONMENT_VARIABLES,
    *("cluster_address", "ansible_host", "ansible_port", "cluster_ssh_port", "cluster_user"),
    *("ssh_trust_key_from", "cluster_known_keys"),
    *("cluster_known_listeners", "cluster_known_programs", "wireguard_mesh_port", "wireguard_mesh_enabled"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A site as the inventory and the controller's secrets describe it."""

    machines: Sequence[Machine]
    secrets: Path
    expected: Expected


@dataclass(slots=True, kw_only=True)
class Seen:
    """What nodes answered, by name, and why others did not."""

    answers: dict[str, Answer] = field(default_factory=dict)
    silent: dict[str, str] = field(default_factory=dict)


def read(inventory: Path, environment: Mapping[str, str]) -> Site:
    """Raises:
    BadInput: the inventory cannot be read, or a variable of it is not of its type.
    """
    site = read_whole(inventory, _VARIABLES, environment=environment)
    try:
        expected = _expected(site.machines, site.secrets, site.variables)
    except (TypeError, ValueError, AttributeError) as e:
        raise BadInput(
            f"read the variables of {inventory}",
            found=f"one of them is not of its type ({e})",
            fix=f"ansible-playbook playbooks/validate.yml -i {inventory} names it.",
        ) from e
    return Site(machines=site.machines, secrets=site.secrets, expected=expected)


def _expected(
    machines: Sequence[Machine], secrets: Path, variables: Mapping[str, Mapping[str, Any]]
) -> Expected:
    nodes = nodes_of(list(variables), variables)
    first: Mapping[str, Any] = next(iter(variables.values()), {})
    public = _lines(secrets / "cluster_key.pub")[:1]
    sources = [*(node.address for node in nodes), *first.get("ssh_trust_key_from", [])]
    people = [
        *(line for one in _ways_in(machines) for line in public_keys(one)),
        *_listed(first, "cluster_known_keys"),
    ]
    return Expected(
        user=str(first.get("cluster_user", "trainer")),
        line=authorised_line(public[0] if public else "", sources),
        cluster_key=key_in(public[0]) if public else "",
        retired=frozenset(map(key_in, _lines(secrets / "retired_keys.pub"))),
        people=frozenset({key_in(line) for line in people} - {key_in(line) for line in public} - {""}),
        listeners=frozenset(_listed(first, "cluster_known_listeners")),
        programs=frozenset(_listed(first, "cluster_known_programs")),
        mesh=frozenset(
            f"udp/{one.get('wireguard_mesh_port', PORT)}"
            for one in variables.values()
            if one.get("wireguard_mesh_enabled") is True
        ),
        ssh=frozenset(
            {"tcp/22", *(f"tcp/{node.port}" for node in nodes), *(f"tcp/{one.port}" for one in machines)}
        ),
        prefix=environment_prefix(first),
    )


def look(site: Site, *, keys_only: bool) -> Seen:
    """Asks every node; one that does not answer is in `silent`.

    Args:
        keys_only: who gets in, and nothing that takes long.
    """
    seen = Seen()
    secrets = [*_SECRETS, f"~{site.expected.user}/.ssh/clusterwright_ed25519"]
    asked = json.dumps({"secrets": secrets, "keys_only": keys_only})
    words = ("python3", "-c", Path(__file__).with_name("audit_program.py").read_text(), asked)
    seconds = _KEYS_SECONDS if keys_only else _SECONDS

    def ask(machine: Machine) -> None:
        try:
            seen.answers[machine.name] = answer_of(ssh.run(machine, words, timeout_seconds=seconds).stdout)
        except CommandFailed as e:
            seen.silent[machine.name] = e.found
        except ValueError:
            seen.silent[machine.name] = "it does not answer as asked"

    with ThreadPoolExecutor(min(_AT_ONCE, len(site.machines))) as pool:
        list(pool.map(ask, site.machines))
    return seen


def answer_of(said: str) -> Answer:
    """What a node said of itself; its own keys are compared with what others said, the rest is judged alone.

    Raises:
        ValueError: it is no answer.
    """
    try:
        answer: Answer = json.loads(said)
        keys = [text for pair in answer["own_keys"].items() for text in pair]
    except (KeyError, TypeError, AttributeError, RecursionError) as e:
        raise ValueError(f"it is no answer ({e!r})") from e
    if not all(isinstance(text, str) for text in keys):
        raise ValueError("a path or a key is no text")
    return answer


def findings(site: Site, seen: Seen, before: Seen | None = None) -> list[Finding]:
    """What is not as it should be, node by node.

    Args:
        before: what was seen earlier, of a node that is none any more too: its keys are known by it.
    """
    holders = {
        key: f"{name} ({path})"
        for one in (seen, before or Seen())
        for name, answer in one.answers.items()
        for path, key in answer["own_keys"].items()
    }
    found = []
    for machine in site.machines:
        if machine.name in seen.silent:
            found.append(unheard(machine.name, seen.silent[machine.name]))
        elif machine.name in seen.answers:
            found += _judged(machine.name, seen.answers[machine.name], site.expected, holders)
    return found


def _judged(name: str, answer: Answer, expected: Expected, holders: Mapping[str, str]) -> list[Finding]:
    try:
        return judge(name, answer, expected, holders)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError) as e:
        return [unheard(name, f"it does not answer as asked ({repr(e)[:_SHOWN]})")]


def of_controller(secrets: Path) -> list[Finding]:
    """What of the controller's own secrets others may read."""
    paths = [secrets, *(path for path in sorted(secrets.glob("*")) if path.suffix not in _PUBLIC)]
    return [
        Finding(
            node="the controller",
            what=f"{path} has mode {mode:04o}",
            why="others read secrets",
            fix=f"chmod go= {path}",
        )
        for path in paths
        if path.exists() and (mode := stat.S_IMODE(path.stat().st_mode)) & 0o077
    ]


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.is_file() else []


def _listed(variables: Mapping[str, Any], name: str) -> list[str]:
    found = variables.get(name, [])
    return [str(one) for one in found] if isinstance(found, list) else []


def _ways_in(machines: Sequence[Machine]) -> list[Machine]:
    """One machine of each set of keys by which the controller logs in."""
    return list({(one.key_files, one.agent): one for one in machines}.values())
