"""Whether sshd lets a user in by a key alone, by what sshd_config(5) says for a connection. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Sequence

from provision.roles.sshd_policy.view import Connection, Settings

_KEY_TYPE = "ssh-ed25519"  # of the cluster's key
STRICTER_FOR_ROOT = ("no", "forced-commands-only")  # of PermitRootLogin, than keys alone


def shut_out(one: Connection, settings: Settings) -> Iterator[str]:
    """The keywords by which sshd refuses this user, whatever the user shows."""
    if any(_is_user(pattern, one) for pattern in _words(settings, "denyusers")):
        yield "denyusers"
    allowed = _words(settings, "allowusers")
    if allowed and not any(_is_user(pattern, one) for pattern in allowed):
        yield "allowusers"
    if any(_matches(pattern, group) for pattern in _words(settings, "denygroups") for group in one.groups):
        yield "denygroups"
    groups = _words(settings, "allowgroups")
    if groups and not any(_matches(pattern, group) for pattern in groups for group in one.groups):
        yield "allowgroups"
    if one.user == "root" and settings.get("permitrootlogin", [""])[0] in STRICTER_FOR_ROOT:
        yield "permitrootlogin"


def against_jobs(one: Connection, settings: Settings, keys_file: str) -> Iterator[str]:
    """The keywords by which the cluster's key does not open a shell of the user of jobs.

    `keys_file`: where that key's line is to stand, `~USER/...` or a whole path.
    """
    yield from shut_out(one, settings)
    if settings.get("pubkeyauthentication") == ["no"]:
        yield "pubkeyauthentication"
    if not _is_key_enough(settings.get("authenticationmethods", ["any"])):
        yield "authenticationmethods"
    algorithms = ",".join(settings.get("pubkeyacceptedalgorithms", []))
    if algorithms and _KEY_TYPE not in algorithms.split(","):
        yield "pubkeyacceptedalgorithms"
    for keyword in ("forcecommand", "chrootdirectory"):
        if settings.get(keyword, ["none"]) != ["none"]:
            yield keyword
    files = _words(settings, "authorizedkeysfile")
    if files and expanded(keys_file, one) not in [expanded(file, one) for file in files]:
        yield "authorizedkeysfile"


def key_files(one: Connection, settings: Settings) -> list[str]:
    """The files in which sshd looks for this user's keys."""
    files = [file for file in _words(settings, "authorizedkeysfile") if file.lower() != "none"]
    return [expanded(file, one) for file in files]


def expanded(file: str, one: Connection) -> str:
    """A whole path: sshd's %h, %u and %%, what lies below the home, and `~USER/` as Ansible has it."""
    tokens = {"%h": one.home, "%u": one.user, "%%": "%"}
    path = re.sub("%[hu%]", lambda found: tokens[found[0]], file)
    path = re.sub(f"^~({re.escape(one.user)})?/", f"{one.home}/", path)
    return path if path.startswith("/") else f"{one.home}/{path}"


def _is_key_enough(ways: Sequence[str]) -> bool:
    return any(way in ("any", "publickey") for text in ways for way in text.split())


def _words(settings: Settings, keyword: str) -> list[str]:
    return [word for value in settings.get(keyword, []) for word in value.split()]


def _is_user(pattern: str, one: Connection) -> bool:
    """USER or USER@HOST, where HOST is patterns or networks: match_user of OpenSSH's match.c."""
    user, at, hosts = pattern.rpartition("@")
    if not at:
        return _matches(pattern, one.user)
    return _matches(user, one.user) and _is_host(hosts.lower().split(","), one)


def _is_host(patterns: Sequence[str], one: Connection) -> bool:
    denied = (pattern[1:] for pattern in patterns if pattern.startswith("!"))
    if any(_is_one_host(pattern, one) for pattern in denied):
        return False
    return any(_is_one_host(pattern, one) for pattern in patterns if not pattern.startswith("!"))


def _is_one_host(pattern: str, one: Connection) -> bool:
    if "/" in pattern:
        try:
            return ipaddress.ip_address(one.address) in ipaddress.ip_network(pattern, strict=False)
        except ValueError:
            return False
    return _matches(pattern, one.address.lower()) or _matches(pattern, one.host.lower())


def _matches(pattern: str, text: str) -> bool:
    """`*` and `?` and nothing else."""
    parts = (".*" if letter == "*" else "." if letter == "?" else re.escape(letter) for letter in pattern)
    return re.fullmatch("".join(parts), text, re.DOTALL) is not None
