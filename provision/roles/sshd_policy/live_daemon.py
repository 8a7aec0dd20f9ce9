"""Whether a node's live ssh daemon takes keys alone."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from provision.roles.sshd_policy.refusals import passwords_that_stay
from provision.roles.sshd_policy.view import view_of

_OFFERED = re.compile(r"Permission denied \(([^()]*)\)")


def policy_problems(
    commands: Mapping[str, Mapping[str, Any]], *, settings: Sequence[str], password_login: bool
) -> list[str]:
    """What is wrong, from three commands that ran on the node.

    Args:
        commands: `settings` (sshd -T), `view` (sshd_view.py), `offered` (a login without a key).
        settings: lines that `sshd -T` must print.
        password_login: sshd may take passwords, too.
    """
    found = _wrong_settings(commands["settings"], settings)
    if password_login:
        return found
    view = view_of(str(commands["view"]["stdout"]).splitlines())
    return [*found, *passwords_that_stay(view, after=True), *_wrong_offer(commands["offered"])]


def offers_too_much(refusal: str, password_login: bool) -> bool:
    """Whether the daemon that runs offered passwords in what it said to somebody without a key."""
    match = _OFFERED.search(refusal)
    return (
        not password_login
        and match is not None
        and not {"password", "keyboard-interactive"}.isdisjoint(match[1].split(","))
    )


def _wrong_settings(printed: Mapping[str, Any], wanted: Sequence[str]) -> list[str]:
    lines = printed["stdout"].splitlines()
    if not lines:
        return [f"sshd -T refuses the configuration: {printed['stderr']}"]
    found = {line.split(" ", 1)[0]: line for line in lines}
    missing = [line for line in wanted if line not in lines]
    return [f"sshd has '{found.get(line.split(' ', 1)[0], 'nothing')}', wanted '{line}'" for line in missing]


def _wrong_offer(login: Mapping[str, Any]) -> list[str]:
    match = _OFFERED.search(login["stderr"])
    if match is None:
        said = " ".join(f"{login['stdout']} {login['stderr']}".split()) or "nothing"
        return [f"a login without a key was not refused as it should be: {said}"]
    return [] if match[1] == "publickey" else [f"the running sshd offers {match[1]}, wanted publickey alone"]
