"""Waits for machines made from an image, gives them their names, and lets restore.yml make them nodes."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Condition

from provision.core import join
from provision.core.host_keys import with_host_keys
from provision.edges import process
from provision.edges.files import write_file
from provision.errors import CommandFailed
from provision.model import Machine

_CHECKOUT = Path(__file__).parents[2]
_PLAY_SECONDS = 3600.0


@dataclass(slots=True)
class Arrivals:
    """The machines that have called, of those that are waited for; their host keys are trusted then."""

    machines: Sequence[Machine]
    on_arrival: Callable[[str, join.Call], None]
    arrived: dict[str, join.Call] = field(default_factory=dict)
    changed: Condition = field(default_factory=Condition)

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


def play(
    name: str,
    inventory: Path,
    words: Sequence[str] = (),
    *,
    on_line: Callable[[str], None],
    environment: Mapping[str, str],
) -> None:
    """Runs a playbook of this checkout.

    Raises:
        CommandFailed: it did not succeed.
    """
    program = Path(sys.executable).parent / "ansible-playbook"
    argv: list[str | Path] = [program, f"playbooks/{name}", "-i", inventory.resolve(), *words]
    status = process.stream(
        argv,
        timeout_seconds=_PLAY_SECONDS,
        on_line=on_line,
        cwd=_CHECKOUT,
        env={**environment, "ANSIBLE_NOCOLOR": "1"},
    )
    if status != 0:
        raise CommandFailed(
            f"run playbooks/{name}", found=f"it ended with status {status}", fix="Its last lines are above."
        )
