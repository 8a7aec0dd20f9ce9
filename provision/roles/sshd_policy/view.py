"""What a node's sshd is set to, as sshd_view.py printed it: for all, and for each connection that counts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from provision.errors import ProvisionError

Settings = Mapping[str, Sequence[str]]
YOU = "you"
_MOST_PLACES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One of sshd's lines; `match`: the criteria of its block. Our file is one line without words."""

    path: str
    number: int
    match: str
    keyword: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """Who comes from where, and what holds then.

    `origin`: a node's name, "" for the node itself, or YOU. `theirs`: without our file; `now`; `then`: with
    what sshd is to be told.
    """

    origin: str
    user: str
    home: str
    groups: Sequence[str]
    address: str
    host: str
    now: Settings
    theirs: Settings
    then: Settings

    @property
    def known_as(self) -> str:
        return f"{self.origin} ({self.address})" if self.origin not in ("", YOU) else self.address


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """`listening`: addresses at which somebody listens at the port of the nodes' sshd."""

    error: str = ""
    now: Settings
    theirs: Settings
    lines: Sequence[Line]
    connections: Sequence[Connection]
    listening: Sequence[str] = ()

    def places(self, keyword: str, settings: Settings | None = None) -> str:
        """The lines that set a keyword, with file and number, and the Match that they stand in.

        `settings`: of one connection; where these are no longer those of all, a Match made them so.
        """
        lines = [line for line in self.lines if line.keyword == keyword]
        in_match = settings is not None and settings.get(keyword) != self.theirs.get(keyword)
        chosen = [line for line in lines if bool(line.match) == in_match] or lines
        told = [
            f"'{line.text}' ({line.path}:{line.number}{f', in Match {line.match}' if line.match else ''})"
            for line in chosen[:_MOST_PLACES]
        ]
        return ", ".join(told) or f"'{keyword}', which no file of sshd names"


def view_of(answer: Sequence[str]) -> View:
    """From the lines that a node printed.

    Raises:
        ProvisionError: there is no answer of that program among them.
    """
    texts = [line.removeprefix("sshd ") for line in answer if line.startswith("sshd {")] or [""]
    try:
        told = json.loads(texts[-1])
        distinct = [_settings(one) for one in told["settings"]]
        return View(
            error=str(told["error"]),
            now=_settings(told["now"]),
            theirs=_settings(told["theirs"]),
            lines=[_line(one) for one in told["lines"]],
            connections=[_connection(one, distinct) for one in told["connections"]],
            listening=[str(address) for address in told["listening"]],
        )
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as e:
        raise ProvisionError(
            "learn what its sshd is set to",
            found=f"its answer is none ({type(e).__name__}): {texts[-1][:80]!r}",
            fix="On the node, as root: sshd -T",
        ) from e


def _settings(told: Mapping[str, Any]) -> dict[str, list[str]]:
    return {str(keyword): [str(value) for value in values] for keyword, values in told.items()}


def _line(told: Mapping[str, Any]) -> Line:
    number = int(told["number"])
    texts = {name: str(told[name]) for name in ("path", "match", "keyword", "text")}
    return Line(number=number, **texts)


def _connection(told: Mapping[str, Any], distinct: Sequence[Settings]) -> Connection:
    return Connection(
        origin=str(told["from"]),
        user=str(told["user"]),
        home=str(told["home"]),
        groups=[str(group) for group in told["groups"]],
        address=str(told["address"]),
        host=str(told["host"]),
        now=distinct[int(told["now"])],
        theirs=distinct[int(told["theirs"])],
        then=distinct[int(told["then"])],
    )
