"""The decisions about a node's ssh daemon, under the names that the roles use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from provision.errors import ProvisionError
from provision.roles.ssh_trust import listening_port
from provision.roles.ssh_trust.next_node import next_node_problems
from provision.roles.sshd_policy import policy_lines
from provision.roles.sshd_policy.live_daemon import offers_too_much, policy_problems
from provision.roles.sshd_policy.refusals import Asked, refusals
from provision.roles.sshd_policy.view import View, view_of


def sshd_policy_problems(
    commands: Mapping[str, Any], settings: Sequence[str], password_login: bool
) -> list[str]:
    try:
        return policy_problems(commands, settings=settings, password_login=password_login)
    except ProvisionError as e:
        return [str(e)]


def sshd_refusals(answer: Sequence[str], asked: Mapping[str, Any]) -> list[str]:
    wanted = Asked(**asked)
    try:
        return refusals(view_of(answer), wanted)
    except ProvisionError as e:
        return [str(e)] if wanted.policed or wanted.trusted else []


def ssh_port_refusals(probe: Sequence[str], port: int) -> list[str]:
    return listening_port.refusals(probe, port=port)


def passwords_end(answer: Sequence[str], password_login: bool) -> bool:
    view = sshd_view(answer)
    return view is not None and policy_lines.switches_passwords_off(view.now, password_login=password_login)


def sshd_lines(answer: Sequence[str], max_startups: str, password_login: bool) -> list[str]:
    view = sshd_view(answer)
    theirs = view.theirs if view else {}
    return policy_lines.wanted_lines(theirs, max_startups=max_startups, password_login=password_login)


def sshd_reads_ours(answer: Sequence[str], wanted: Sequence[str]) -> bool:
    view = sshd_view(answer)
    return view is not None and policy_lines.reads_ours(view.lines, wanted)


def sshd_view(answer: Sequence[str]) -> View | None:
    """None where the answer is none, which `sshd_refusals` says."""
    try:
        return view_of(answer)
    except ProvisionError:
        return None


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "next_node_problems": next_node_problems,
            "offers_too_much": offers_too_much,
            "passwords_end": passwords_end,
            "ssh_port_refusals": ssh_port_refusals,
            "sshd_lines": sshd_lines,
            "sshd_policy_problems": sshd_policy_problems,
            "sshd_printed": policy_lines.printed,
            "sshd_reads_ours": sshd_reads_ours,
            "sshd_refusals": sshd_refusals,
        }
