"""What sshd_policy writes into sshd's settings: never looser than what the site itself has set."""

from __future__ import annotations

from collections.abc import Sequence

from provision.roles.sshd_policy.admission import STRICTER_FOR_ROOT
from provision.roles.sshd_policy.view import Line, Settings

OURS = "/etc/ssh/sshd_config.d/10-clusterwright.conf"
KEYS_ONLY = ("PasswordAuthentication no", "KbdInteractiveAuthentication no")


def wanted_lines(theirs: Settings, *, max_startups: str, password_login: bool) -> list[str]:
    """The lines of our file, given the site's own settings."""
    root_stays = _first(theirs, "permitrootlogin") in STRICTER_FOR_ROOT
    keys_only = [*KEYS_ONLY, *([] if root_stays else ["PermitRootLogin prohibit-password"])]
    return [
        "PubkeyAuthentication yes",
        *([] if password_login else keys_only),
        f"MaxStartups {_not_lowered(_first(theirs, 'maxstartups'), max_startups)}",
    ]


def printed(lines: Sequence[str]) -> list[str]:
    """The lines as `sshd -T` prints them."""
    return [line.lower().replace("prohibit-password", "without-password") for line in lines]


def switches_passwords_off(now: Settings, *, password_login: bool) -> bool:
    """Whether somebody could log in now who could not afterwards."""
    asked = ("passwordauthentication", "kbdinteractiveauthentication", "permitrootlogin")
    return not password_login and "yes" in (_first(now, keyword) for keyword in asked)


def reads_ours(lines: Sequence[Line], wanted: Sequence[str]) -> bool:
    """Whether sshd reads our file, in no Match, and before any line that says otherwise than it.

    The first value holds, so that a file of a lower number in the same folder would win.
    """
    ours = [_words(line) for line in wanted]
    for line in lines:
        if line.path == OURS:
            return not line.match
        words = _words(line.text)
        if not line.match and words[:1] in [setting[:1] for setting in ours] and words not in ours:
            return False
    return False


def _words(line: str) -> list[str]:
    return line.partition("#")[0].replace("=", " ", 1).replace('"', " ").lower().split()


def _first(settings: Settings, keyword: str) -> str:
    return next(iter(settings.get(keyword, ())), "")


def _not_lowered(theirs: str, ours: str) -> str:
    """start:rate:full, each as generous as the more generous of the two."""
    if theirs.count(":") != 2 or ours.count(":") != 2:
        return ours
    (start, rate, full), own = (list(map(int, text.split(":"))) for text in (theirs, ours))
    return f"{max(start, own[0])}:{min(rate, own[1])}:{max(full, own[2])}"
