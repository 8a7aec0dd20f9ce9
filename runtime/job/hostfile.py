"""The hostfile: one line for each node, `[user@]name slots=N`, in the order of the ranks.

A `#` begins a comment; blank lines are allowed; everything else is an error with its line and column.
(DeepSpeed's pattern reads `slots=4junk` as 4, accepts `slots=0`, and says nothing about what it skips.)
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from runtime.errors import BadInput

_FORM = "A line reads `name slots=N`, for example `te1 slots=1`."
_USER = r"[A-Za-z_][A-Za-z0-9_.-]*"
_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9.:-]*[A-Za-z0-9])?"
_HOST = re.compile(rf"(?:(?P<user>{_USER})@)?(?P<name>{_NAME})")
_SLOTS = re.compile(r"slots=([1-9][0-9]{0,3})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A node of the hostfile: name or address, number of processes that it takes, ssh user if given."""

    name: str
    slots: int
    user: str | None = None


@dataclass(frozen=True, slots=True)
class _Word:
    text: str
    column: int


def parse_hostfile(text: str, *, source: str) -> tuple[Host, ...]:
    """Reads a hostfile's text; `source` names it in errors.

    Raises:
        BadInput: with line and column of the first thing that is not of the form, or no node is named.
    """
    hosts: list[Host] = []
    first_seen: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        words = list(_words(line))
        if not words:
            continue
        where = f"read {source}, line {number}"
        host = _host(words, where)
        if host.name in first_seen:
            raise _wrong(where, words[0], f"{host.name} is on line {first_seen[host.name]} already")
        first_seen[host.name] = number
        hosts.append(host)
    if not hosts:
        raise BadInput(f"read {source}", found="no node in it", fix=_FORM)
    return tuple(hosts)


def _words(line: str) -> Iterator[_Word]:
    for match in re.finditer(r"\S+", line.split("#", 1)[0]):
        yield _Word(match.group(), match.start() + 1)


def _host(words: list[_Word], where: str) -> Host:
    name = _HOST.fullmatch(words[0].text)
    if name is None:
        raise _wrong(where, words[0], f"{words[0].text!r} is not a host name")
    if len(words) == 1:
        end = _Word("", words[0].column + len(words[0].text))
        raise _wrong(where, end, "slots=N is missing")
    slots = _SLOTS.fullmatch(words[1].text)
    if slots is None:
        raise _wrong(where, words[1], f"{words[1].text!r} where slots=N is wanted, N from 1 to 9999")
    if len(words) > 2:
        raise _wrong(where, words[2], f"{words[2].text!r} after the end of the entry")
    return Host(name=name["name"], slots=int(slots[1]), user=name["user"])


def _wrong(where: str, word: _Word, found: str) -> BadInput:
    return BadInput(f"{where}, column {word.column}", found=found, fix=_FORM)
