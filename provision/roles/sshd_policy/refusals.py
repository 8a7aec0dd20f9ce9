"""Settings of the site against which no cluster can be made: which line, who was asked for, how to go on."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from provision.roles.sshd_policy.admission import against_jobs, key_files, shut_out
from provision.roles.sshd_policy.view import YOU, Connection, View

_PASSWORDS = {"passwordauthentication": "password", "kbdinteractiveauthentication": "keyboard-interactive"}
_WILDCARDS = ("0.0.0.0", "::")
_MOST_ORIGINS = 4
_LEAVE = "leave sshd's settings to yourself (cluster_without: [sshd_policy])"
_OTHER_USER = "let jobs run as another user (cluster_user)"
_FIXES: Mapping[str, str] = {
    "denyusers": f"take {{user}} out of it yourself and reload sshd, or {_OTHER_USER}",
    "allowusers": "add {user} to it yourself and reload sshd, or set cluster_user to one that it lists",
    "denygroups": f"take the group out of it yourself and reload sshd, or {_OTHER_USER}",
    "allowgroups": (
        "add a group of {user} ({groups}) to it yourself and reload sshd, or set cluster_user to one of a "
        "group that it lists"
    ),
    "permitrootlogin": (
        "the cluster's user is root: set cluster_user to another user, or write "
        "'PermitRootLogin prohibit-password' there"
    ),
    "pubkeyauthentication": "nodes reach each other by keys: write 'PubkeyAuthentication yes' there",
    "authenticationmethods": (
        "a key has to be enough for jobs: write before it 'Match User {user} Address {addresses}' with "
        "'AuthenticationMethods publickey', and 'Match all' behind that"
    ),
    "pubkeyacceptedalgorithms": "the cluster's key is of the type ssh-ed25519: add it there",
    "forcecommand": f"jobs run commands of their own: keep {{user}} out of it, or {_OTHER_USER}",
    "chrootdirectory": f"jobs see the whole system: keep {{user}} out of it, or {_OTHER_USER}",
    "authorizedkeysfile": (
        "set ssh_trust_authorized_keys to a file that sshd reads{files}, or add .ssh/authorized_keys there"
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is to be done on a node, and where the others reach it.

    `policed`: sshd's settings are changed. `trusted`: nodes get the cluster's key, whose line stands in
    `keys_file`. `addresses_known`: nodes come from the addresses that the inventory gives them.
    """

    policed: bool
    trusted: bool
    passwords_stay: bool
    keys_file: str
    addresses_known: bool
    address: str
    port: int


def refusals(view: View, asked: Asked) -> list[str]:
    """Why nothing is changed anywhere; empty where all that counts is let in."""
    found = unreadable(view) if asked.policed or asked.trusted else []
    if asked.trusted and asked.addresses_known:
        found += of_jobs(view, asked.keys_file) + of_address(view, asked.address, asked.port)
    if asked.policed:
        found += of_yours(view)
    if asked.policed and not asked.passwords_stay:
        found += passwords_that_stay(view) + locked_out(view)
    return found


def unreadable(view: View) -> list[str]:
    """sshd takes what its own files say, or it would not start again."""
    if view.now or not view.error:
        return []
    return [f"sshd -T refuses its own files: {' '.join(view.error.split())}. Mend them: sshd -t"]


def of_jobs(view: View, keys_file: str) -> list[str]:
    """Why the user of jobs would not be let in from other nodes, each reason once."""
    others = [one for one in view.connections if one.origin not in ("", YOU)]
    refused: dict[tuple[str, str], list[Connection]] = {}
    for one in others:
        for keyword in against_jobs(one, one.theirs, keys_file):
            refused.setdefault((keyword, view.places(keyword, one.theirs)), []).append(one)
    return [_of_jobs(keyword, places, ones, keys_file) for (keyword, places), ones in refused.items()]


def _of_jobs(keyword: str, places: str, ones: Sequence[Connection], keys_file: str) -> str:
    one = ones[0]
    files = key_files(one, one.theirs)
    fix = _FIXES[keyword].format(
        user=one.user,
        groups=", ".join(one.groups),
        addresses=",".join(other.address for other in ones),
        files=f" ({' or '.join(files)})" if files else "",
    )
    asked = f", and the key of jobs is to stand in {keys_file}" if keyword == "authorizedkeysfile" else ""
    return (
        f"sshd would not let {one.user}, the user of jobs, in from {_told(ones)}: {places}{asked}. "
        f"site.yml never changes that line: {fix}"
    )


def of_yours(view: View) -> list[str]:
    """Why you would be locked out by sshd's next start: its files are no longer what the running one read."""
    return [
        f"sshd's files refuse {one.user} from {one.address}, which is you: "
        f"{view.places(keyword, one.theirs)}. The sshd that runs has not read them yet, and restarted it "
        f"lets you in no more: correct that line, or {_LEAVE}"
        for one in view.connections
        if one.origin == YOU
        for keyword in shut_out(one, one.theirs)
    ]


def passwords_that_stay(view: View, *, after: bool = False) -> list[str]:
    """Match blocks that keep passwords for connections that count, whatever our settings say.

    `after`: our settings are live, so that what holds now is asked.
    """
    kept: dict[str, list[Connection]] = {}
    for one in view.connections:
        settings = one.now if after else one.then
        for keyword in _PASSWORDS:
            if settings.get(keyword) == ["yes"]:
                kept.setdefault(_places_in_match(view, keyword), []).append(one)
    return [
        f"{places} keeps passwords for {', '.join(dict.fromkeys(one.user for one in ones))} from "
        f"{_told(ones)}: take it out, let passwords be (cluster_password_login: true), or {_LEAVE}"
        for places, ones in kept.items()
    ]


def _places_in_match(view: View, keyword: str) -> str:
    """A value that our file does not change stands in a Match."""
    return view.places(keyword, {keyword: ["of a Match"]})


def locked_out(view: View) -> list[str]:
    """Lines that let users in with a key and a password alone: no user gets in by a method that is off."""
    ending = {method for keyword, method in _PASSWORDS.items() if view.theirs.get(keyword) == ["yes"]}
    found = []
    for line in view.lines:
        ways = line.text.partition("#")[0].replace("=", " ", 1).replace('"', "").split()[1:]
        needed = [{method.partition(":")[0] for method in way.split(",")} for way in ways]
        if line.keyword == "authenticationmethods" and needed and all(ending & way for way in needed):
            found.append(
                f"'{line.text}' ({line.path}:{line.number}) lets users in with key and password, and role "
                "sshd_policy switches passwords off: let them be (cluster_password_login: true), or "
                f"{_LEAVE}"
            )
    return found


def of_address(view: View, address: str, port: int) -> list[str]:
    """sshd listens at some addresses alone, and not at the one by which nodes reach this one."""
    if not view.listening or any(one in (*_WILDCARDS, address) for one in view.listening):
        return []
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return []  # a name, which means nothing before role host_names has run
    return [
        f"the other nodes would reach its sshd at {address}, port {port}, and there it listens at "
        f"{', '.join(view.listening)} alone: {view.places('listenaddress')}. Add 'ListenAddress {address}' "
        "yourself and restart sshd, or correct cluster_address"
    ]


def _told(ones: Sequence[Connection]) -> str:
    names = list(dict.fromkeys(one.known_as for one in ones))
    more = f" and {len(names) - _MOST_ORIGINS} more" if len(names) > _MOST_ORIGINS else ""
    return ", ".join(names[:_MOST_ORIGINS]) + more
