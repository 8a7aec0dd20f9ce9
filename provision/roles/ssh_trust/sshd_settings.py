"""What ssh_trust writes into sshd's settings: never looser than what the site itself has set."""

from __future__ import annotations

import fnmatch
import posixpath
from collections.abc import Mapping, Sequence

OURS = "/etc/ssh/sshd_config.d/10-clusterwright.conf"
_KEYWORDS = (
    "pubkeyauthentication",
    "passwordauthentication",
    "kbdinteractiveauthentication",
    "permitrootlogin",
    "maxstartups",
)
_STRICTER_FOR_ROOT = ("no", "forced-commands-only")


def settings_of(probe: Sequence[str], of: str) -> dict[str, str]:
    """The settings that `node_access` printed: `now`, or the site's own without our file (`theirs`).

    Where the site's own could not be told apart, they are those of now.
    """
    lines = [line.split(" ", 2) for line in probe if line.startswith(f"{of} ")]
    found = {fields[1]: fields[2] for fields in lines if len(fields) == 3}
    return found or (settings_of(probe, "now") if of != "now" else {})


def wanted_lines(theirs: Mapping[str, str], *, max_startups: str, password_login: bool) -> list[str]:
    """The lines of our file, given the site's own settings."""
    root_stays = theirs.get("permitrootlogin") in _STRICTER_FOR_ROOT
    keys_only = ["PasswordAuthentication no", "KbdInteractiveAuthentication no"]
    keys_only += [] if root_stays else ["PermitRootLogin prohibit-password"]
    return [
        "PubkeyAuthentication yes",
        *([] if password_login else keys_only),
        f"MaxStartups {_not_lowered(theirs.get('maxstartups', ''), max_startups)}",
    ]


def printed(lines: Sequence[str]) -> list[str]:
    """The lines as `sshd -T` prints them."""
    return [line.lower().replace("prohibit-password", "without-password") for line in lines]


def switches_passwords_off(now: Mapping[str, str], *, password_login: bool) -> bool:
    """Whether somebody could log in now who could not afterwards."""
    asked = ("passwordauthentication", "kbdinteractiveauthentication", "permitrootlogin")
    return not password_login and "yes" in (now.get(keyword, "") for keyword in asked)


def refusals(probe: Sequence[str], *, cluster_user: str, password_login: bool) -> list[str]:
    """Settings of the site against which no cluster can be made, each with its file and what to do."""
    theirs = settings_of(probe, "theirs")
    keys, root = theirs.get("pubkeyauthentication", ""), theirs.get("permitrootlogin", "")
    found = []
    if keys == "no":
        fix = "nodes reach each other by keys: write 'PubkeyAuthentication yes' there"
        found.append(
            f"sshd has 'PubkeyAuthentication no' ({_place(probe, 'pubkeyauthentication')}), and {fix}"
        )
    if cluster_user == "root" and root in _STRICTER_FOR_ROOT:
        fix = "set cluster_user to another user, or write 'PermitRootLogin prohibit-password' there"
        why = f"sshd has 'PermitRootLogin {root}' ({_place(probe, 'permitrootlogin')})"
        found.append(f"{why}, and the cluster's user is root: {fix}")
    return found + ([] if password_login else _locked_out(probe, theirs))


def _locked_out(probe: Sequence[str], theirs: Mapping[str, str]) -> list[str]:
    """Lines that let users in with a key and a password alone: no user gets in by a method that is off."""
    keywords = {"password": "passwordauthentication", "keyboard-interactive": "kbdinteractiveauthentication"}
    ending = {method for method, keyword in keywords.items() if theirs.get(keyword) == "yes"}
    found = []
    for path, number, text in _lines(probe):
        keyword, *ways = text.partition("#")[0].replace("=", " ", 1).replace('"', "").split()
        needed = [{method.partition(":")[0] for method in way.split(",")} for way in ways]
        if keyword.lower() == "authenticationmethods" and needed and all(ending & way for way in needed):
            found.append(
                f"'{' '.join(text.split())}' ({path}:{number}) lets users in with key and password, "
                "and role ssh_trust switches passwords off: let them be (cluster_password_login: true)"
            )
    return found


def reads_ours(text: str) -> bool:
    """Whether this sshd_config reads our file before it sets, or confines to a Match, what our file sets."""
    for line in text.splitlines():
        keyword, *values = line.partition("#")[0].replace("=", " ", 1).split() or [""]
        if keyword.lower() == "include" and any(map(_is_ours, values)):
            return True
        if keyword.lower() in ("match", *_KEYWORDS):
            return False
    return False


def _is_ours(pattern: str) -> bool:
    return fnmatch.fnmatchcase(OURS, posixpath.join("/etc/ssh", pattern.strip('"')))


def _not_lowered(theirs: str, ours: str) -> str:
    """start:rate:full, each as generous as the more generous of the two."""
    if theirs.count(":") != 2 or ours.count(":") != 2:
        return ours
    (start, rate, full), own = (list(map(int, text.split(":"))) for text in (theirs, ours))
    return f"{max(start, own[0])}:{min(rate, own[1])}:{max(full, own[2])}"


def _place(probe: Sequence[str], keyword: str) -> str:
    """Files and lines that set a keyword, printed as `line FILE:NUMBER:TEXT`."""
    places = [
        f"{path}:{number}"
        for path, number, text in _lines(probe)
        if text.split()[0].lower().startswith(keyword)
    ]
    return ", ".join(places) or "no file below /etc/ssh names it"


def _lines(probe: Sequence[str]) -> list[tuple[str, str, str]]:
    """File, number and text of each line."""
    parts = [line.removeprefix("line ").split(":", 2) for line in probe if line.startswith("line ")]
    return [(path, number, text) for path, number, text in parts]
