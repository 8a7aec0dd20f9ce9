"""Whether a node listens where the other nodes would reach its sshd, from what role node_access printed."""

from __future__ import annotations

from collections.abc import Sequence


def refusals(probe: Sequence[str], *, port: int) -> list[str]:
    """Why no node could reach this one, before anything is changed.

    Args:
        probe: lines of sshd_port.sh: `port N listens`, or `port N silent` and `port of WHO WHERE` for each
            place where it listens instead.
    """
    if f"port {port} silent" not in probe:
        return []
    places = [line.removeprefix("port of ") for line in probe if line.startswith("port of ")]
    instead = f"; it listens by {', '.join(dict.fromkeys(places))}" if places else ""
    return [
        f"nothing listens at port {port}, where the other nodes would reach its sshd{instead}. Correct "
        "ansible_port, or set cluster_ssh_port where the controller comes through another port than the nodes"
    ]
