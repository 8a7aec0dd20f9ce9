"""Waits for machines made from an image, gives them their names, and lets restore.yml make them nodes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Condition

from provision.edges import cluster_lock, ssh, ssh_signature
from provision.edges.files import text_of, write_file
from provision.edges.public_keys import login_key
from provision.errors import CommandFailed
from provision.inventory.members import Members
from provision.join import protocol
from provision.join.tokens import Tokens
from provision.model import Machine
from provision.nodes import node_record
from provision.nodes.life import Reporter, records, run_all
from provision.nodes.steps import are_all, new_pairs_step, restore_steps
from provision.roles.ssh_trust.host_keys import with_host_keys


@dataclass(slots=True)
class Arrivals:
    """The machines that have called, of those that are waited for; their host keys are trusted then.

    Args:
        key: the controller's joining key, with which answers are signed.
    """

    machines: Sequence[Machine]
    tokens: Tokens
    key: Path
    on_arrival: Callable[[str, protocol.Call], None]
    arrived: dict[str, protocol.Call] = field(default_factory=dict)
    changed: Condition = field(default_factory=Condition)

    def recall(self, answers: Callable[[Machine], bool]) -> None:
        """Takes in those that called before a restore was cut off, where they still answer."""
        calls = self.tokens.calls()
        for machine in self.machines:
            if (call := calls.get(machine.name)) and call.address == machine.calls_from and answers(machine):
                self.arrived[machine.name] = call
                self.on_arrival(machine.name, call)

    def on_call(self, letter: protocol.Letter) -> str:
        """The signed answer to a call; a machine whose first boot was cut off calls again, and gets it again.

        Raises:
            Refused: the call is not proven, or its machine is not waited for.
        """
        with self.changed:
            name, call = protocol.believed(letter, self.tokens.find(letter.token), now=time.time())
            machine = self._awaited(name, call)
            self.tokens.note_call(letter.token, name, call)
            self._trust(machine, call)
        public = login_key(machine)
        said = protocol.answer(name, user=machine.user, authorized_key=public)
        signed = protocol.payload("answer", letter.text, said)
        signature = ssh_signature.sign(signed, key=self.key, namespace=protocol.NAMESPACE)
        return json.dumps({"answer": said, "signature": signature})

    def _awaited(self, name: str, call: protocol.Call) -> Machine:
        machine = next((machine for machine in self.machines if machine.name == name), None)
        if machine is None:
            raise protocol.Refused(404, f"{name} is not waited for: provision restore {name}")
        if machine.calls_from != call.address:
            raise protocol.Refused(
                403,
                f"the inventory gives {name} the address {machine.address} by now, its token {call.address}: "
                f"provision restore {name} --user-data DIR makes another",
            )
        return machine

    def _trust(self, machine: Machine, call: protocol.Call) -> None:
        path = machine.known_hosts[0].resolve()
        known, mode = (text_of(path), path.stat().st_mode & 0o777) if path.exists() else ("", 0o644)
        write_file(path, with_host_keys(known, machine.known_as, call.host_keys), mode=mode)
        if machine.name not in self.arrived:
            self.on_arrival(machine.name, call)
        self.arrived[machine.name] = call
        self.changed.notify_all()

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
    def tokens(self) -> Tokens:
        """Who may call, and who has called and is no node yet."""
        return Tokens(folder=self.secrets)


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
        site.tokens.finish(names)
    return pending


def answers(machine: Machine) -> bool:
    """Whether it is reached with the host keys that it called with."""
    try:
        ssh.run(machine, ("true",), timeout_seconds=10)
    except CommandFailed:
        return False
    return True
