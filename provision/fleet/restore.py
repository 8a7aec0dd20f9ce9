"""Waits for machines made from an image, gives them their names, and lets restore.yml make them nodes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Condition

from provision.core import join, node_record
from provision.core.host_keys import with_host_keys
from provision.core.node_life import Members, are_all, new_pairs_step, restore_steps
from provision.edges import cluster_lock, ssh
from provision.edges.files import write_file
from provision.errors import CommandFailed
from provision.fleet.node_life import Reporter, records, run_all
from provision.model import Machine


@dataclass(slots=True, kw_only=True)
class CallRecord:
    """Calls of machines that are not nodes yet: each calls once, and a restore may be cut off after that."""

    path: Path

    def read(self) -> dict[str, join.Call]:
        """Calls by the name that was answered."""
        if not self.path.is_file():
            return {}
        found = json.loads(self.path.read_text())
        return {
            name: join.Call(**{**call, "host_keys": tuple(call["host_keys"])}) for name, call in found.items()
        }

    def add(self, name: str, call: join.Call) -> None:
        self._write({**self.read(), name: call})

    def remove(self, names: Collection[str]) -> None:
        """Forgets those that are nodes now."""
        self._write({name: call for name, call in self.read().items() if name not in names})

    def _write(self, calls: Mapping[str, join.Call]) -> None:
        text = json.dumps({name: asdict(call) for name, call in calls.items()}, indent=2)
        write_file(self.path, text + "\n", mode=0o600)


@dataclass(slots=True)
class Arrivals:
    """The machines that have called, of those that are waited for; their host keys are trusted then."""

    machines: Sequence[Machine]
    on_arrival: Callable[[str, join.Call], None]
    record: CallRecord | None = None
    arrived: dict[str, join.Call] = field(default_factory=dict)
    changed: Condition = field(default_factory=Condition)

    def recall(self, answers: Callable[[Machine], bool]) -> None:
        """Takes in those that called before a restore was cut off, where they still answer."""
        calls = self.record.read() if self.record else {}
        for machine in self.machines:
            if (call := calls.get(machine.name)) and call.address == machine.address and answers(machine):
                self.arrived[machine.name] = call
                self.on_arrival(machine.name, call)

    def on_call(self, call: join.Call) -> dict[str, str]:
        """The answer to a call; a machine whose first boot was cut off calls again, and gets it again."""
        machines = {machine.address: machine for machine in self.machines}
        machine = machines.get(call.address)
        names = {address: found.name for address, found in machines.items()}
        if machine is None:
            return join.answer(call, names, user="", authorized_key="")
        public = machine.key_file.with_name(f"{machine.key_file.name}.pub").read_text().strip()
        with self.changed:
            known = machine.known_hosts.read_text() if machine.known_hosts.exists() else ""
            write_file(machine.known_hosts, with_host_keys(known, machine.address, call.host_keys))
            if self.record:
                self.record.add(machine.name, call)
            self.arrived[machine.name] = call
            self.on_arrival(machine.name, call)
            self.changed.notify_all()
        return join.answer(call, names, user=machine.user, authorized_key=public)

    def wait(self, timeout_seconds: float) -> None:
        """Waits until all have called.

        Raises:
            CommandFailed: some have not in time.
        """
        deadline = time.monotonic() + timeout_seconds
        with self.changed:
            while missing := [m.name for m in self.machines if m.name not in self.arrived]:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise CommandFailed(
                        f"wait for {', '.join(missing)}",
                        found=f"no call within {timeout_seconds:.0f} s",
                        fix="Look at /var/lib/clusterwright/first_boot.json on its console.",
                    )
                self.changed.wait(min(left, 1.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoredSite:
    """A site as it is read before its machines call: they need not wait for that."""

    inventory: Path
    secrets: Path
    members: Members

    @property
    def calls(self) -> CallRecord:
        """Who has called and is no node yet, beside the site's secrets."""
        return CallRecord(path=self.secrets / "arrived.json")


def make_nodes(
    names: Collection[str], site: RestoredSite, environment: Mapping[str, str], reporter: Reporter
) -> list[str]:
    """Machines that have called become nodes, the others are told, and the new ones are tested.

    Returns those of the others that did not answer; they are told at the next contact.

    Raises:
        Busy: another controller works on the cluster.
        ProvisionError: a playbook failed; run again, it goes on.
    """
    members = site.members
    with cluster_lock.hold(site.secrets, f"provision restore {' '.join(sorted(names))}"):
        run_all(site.inventory, restore_steps(names, members), environment, reporter)
        pending = node_record.pending(records(site.secrets), members.names)
        last = None if are_all(names, members) else new_pairs_step(names, members, pending)
        run_all(site.inventory, [last] if last else [], environment, reporter)
        site.calls.remove(names)
    return pending


def answers(machine: Machine) -> bool:
    """Whether it is reached with the host keys that it called with."""
    try:
        ssh.run(machine, ("true",), timeout_seconds=10)
    except CommandFailed:
        return False
    return True
