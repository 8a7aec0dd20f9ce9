"""Whether a node's live ssh daemon and its way to the next node are as they should be."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

_OFFERED = re.compile(r"Permission denied \(([^()]*)\)")


def trust_problems(
    commands: Mapping[str, Mapping[str, Any]],
    *,
    settings: Sequence[str],
    next_node: str,
    password_login: bool = False,
) -> list[str]:
    """What is wrong, from three commands that ran on the node.

    Args:
        commands: `settings` (sshd -T), `offered` (a login without a key), `next_node` (hostname over ssh).
        settings: lines that `sshd -T` must print.
        next_node: the name that the next node must answer.
        password_login: sshd may take passwords, too.
    """
    return [
        *_wrong_settings(commands["settings"], settings),
        *([] if password_login else _wrong_offer(commands["offered"])),
        *_wrong_answer(commands["next_node"], next_node),
    ]


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
        return [f"a login without a key was not refused as it should be: {_said(login)}"]
    return [] if match[1] == "publickey" else [f"the running sshd offers {match[1]}, wanted publickey alone"]


def _wrong_answer(answer: Mapping[str, Any], next_node: str) -> list[str]:
    if answer["rc"] == 0 and answer["stdout"] == next_node:
        return []
    return [f"ssh to {next_node} ends with {answer['rc']}: {_said(answer)}"]


def _said(result: Mapping[str, Any]) -> str:
    return " ".join(f"{result['stdout']} {result['stderr']}".split()) or "nothing"
