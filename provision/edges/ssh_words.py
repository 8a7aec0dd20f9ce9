"""What is said of a machine that is not reached. Pure."""

from __future__ import annotations

from provision.model import SSH_PORT, Machine

TRY = "Try: ssh {port}{user}@{address} true"
COMPARE = "Compare its key on its console with ssh-keyscan {port}{address}, then correct {known}."


def reach(machine: Machine) -> str:
    """What was asked."""
    return f"reach {machine.name} at {machine.place}"


def filled(machine: Machine, text: str, **more: str) -> str:
    """A text with the machine's own words in it."""
    return text.format(
        user=machine.user,
        address=machine.address,
        number=machine.port,
        port="" if machine.port == SSH_PORT else f"-p {machine.port} ",
        known=machine.known_hosts[0] if machine.known_hosts else "your known_hosts",
        **more,
    )
