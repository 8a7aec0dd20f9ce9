"""What nodes say of their sshd, in short."""

from __future__ import annotations

from collections.abc import Sequence

from provision.roles.sshd_policy.policy_lines import OURS as PATH
from provision.roles.sshd_policy.view import Connection, Line, Settings, View

OURS = "our file"
CONFIG = "/etc/ssh/sshd_config"


def lines_in(texts: Sequence[str]) -> list[Line]:
    """Lines of sshd_config by number; `Match CRITERIA: LINE` for one of a block, OURS where ours is read."""
    found = []
    for number, text in enumerate(texts, start=1):
        head, _, line = text.rpartition(": ")
        path = PATH if line == OURS else CONFIG
        keyword = line.replace("=", " ").split()[0].lower()
        match = head.removeprefix("Match ")
        found.append(Line(path=path, number=number, match=match, keyword=keyword, text=line))
    return found


def settings(**values: str) -> Settings:
    """As `sshd -T` prints them; a value for each part between `|`."""
    return {keyword: value.split("|") for keyword, value in values.items()}


def connection(
    origin: str = "te2",
    address: str = "10.0.0.2",
    *,
    user: str = "trainer",
    groups: Sequence[str] = ("trainer",),
    theirs: Settings | None = None,
    then: Settings | None = None,
    now: Settings | None = None,
) -> Connection:
    return Connection(
        origin=origin,
        user=user,
        home=f"/home/{user}",
        groups=groups,
        address=address,
        host=address,
        theirs=theirs or {},
        then=then or {},
        now=now or {},
    )


def view(
    *connections: Connection, lines: Sequence[str] = (), theirs: Settings | None = None, error: str = ""
) -> View:
    now = {} if error else {"port": ["22"], **(theirs or {})}
    return View(error=error, now=now, theirs=theirs or {}, lines=lines_in(lines), connections=connections)
