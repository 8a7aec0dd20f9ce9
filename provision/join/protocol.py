"""A machine made from an image asks the controller who it is: what it says, and whether it is believed.

The machine shows a token, which its user data gave to it alone: HMAC-SHA256 (RFC 2104) over its call, host
keys included; the token itself never travels. The answer is signed with a key that only the controller has,
over the call and its nonce: whoever holds an image has the public half, which checks answers and makes none.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

# What a signature of the controller's joining key is for; one made for something else does not count.
NAMESPACE = "clusterwright-join-answer"
PATH = "/join"
_HOST_KEY = re.compile(r"(ssh|ecdsa|sk)-[a-z0-9@.-]{1,64} [A-Za-z0-9+/]{16,2000}={0,3}")
# These words are shown to a person: no spaces, no control characters.
_WORD = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_MOST_HOST_KEYS = 16


class Refused(Exception):
    """A machine gets no name; says why, and what to do. `status` is HTTP's."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """A call as it came: the address that it came from, the token that it names, its MAC (hexadecimal)."""

    sender: str
    token: str
    mac: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What a machine says of itself; `nonce` is its own, new in each call, and makes the answer one to it."""

    nonce: str
    image: str
    machine: str
    address: str
    host_keys: tuple[str, ...]

    def is_of_the_same_machine(self, other: Call) -> bool:
        """A machine whose first boot was cut off calls again, with another nonce."""
        return replace(self, nonce="") == replace(other, nonce="")


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """Lets each of `machines` (address by name) call once, as one machine, before `expires` (seconds, epoch).

    `secret` is gone once all of them are nodes; `calls` and `nodes` are kept, so that it stays known as used.
    """

    id: str
    secret: str = field(repr=False)
    expires: float
    machines: Mapping[str, str]
    calls: Mapping[str, Call] = field(default_factory=dict)
    nodes: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """What the user data holds."""
        return f"{self.id}.{self.secret}"


def payload(direction: str, text: str, answer: str = "") -> str:
    """What is signed: which way it goes, what was asked where, and the answer. One form for one content."""
    return json.dumps({"direction": direction, "path": PATH, "call": text, "answer": answer}, sort_keys=True)


def mac(secret: str, text: str) -> str:
    """Shows that whoever wrote the call holds the token."""
    return hmac.new(secret.encode(), payload("call", text).encode(), hashlib.sha256).hexdigest()


def parse(text: str) -> Call:
    """A call from what a machine sent.

    Raises:
        ValueError: it is none.
    """
    try:
        found: Mapping[str, Any] = json.loads(text)
        words = {name: str(found[name]) for name in ("nonce", "image", "machine", "address")}
        keys = tuple(str(key) for key in found["host_keys"])
    except (TypeError, KeyError, RecursionError) as e:
        raise ValueError(f"it lacks {e}") from e
    if wrong := [name for name, word in words.items() if not _WORD.fullmatch(word)]:
        raise ValueError(f"its {wrong[0]} is none")
    if not 0 < len(keys) <= _MOST_HOST_KEYS or not all(_HOST_KEY.fullmatch(key) for key in keys):
        raise ValueError("its host keys are none")
    return Call(host_keys=keys, **words)


def believed(letter: Letter, token: Token | None, *, now: float) -> tuple[str, Call]:
    """The name that a call's token stands for, and the call, once both are proven.

    Raises:
        Refused: with why. Nothing in a call is looked at before its MAC is right.
    """
    _prove(letter, token)
    assert token is not None
    if now >= token.expires:
        raise Refused(410, f"the token of {_names(token)} has expired. {_renew(token)}")
    try:
        call = parse(letter.text)
    except ValueError as e:
        raise Refused(400, f"it is no call: {e}") from e
    if call.address != letter.sender:
        raise Refused(403, f"it comes from {letter.sender} and says {call.address}")
    name = next((name for name, address in token.machines.items() if address == call.address), None)
    if name is None:
        raise Refused(403, f"its token is for {_names(token)}, not for a machine at {call.address}")
    _refuse_a_second_machine(token, name, call)
    return name, call


def _prove(letter: Letter, token: Token | None) -> None:
    """Takes as long for a token that is not known as for one that is."""
    expected = mac(token.secret if token else "none", letter.text)
    is_right = hmac.compare_digest(expected.encode(), letter.mac.encode("utf-8", "replace"))
    if token is None:
        raise Refused(
            403, "its token is none that counts: give it user data of provision restore --user-data"
        )
    if not token.secret:
        raise Refused(410, f"the token of {_names(token)} was used. {_renew(token)}")
    if not is_right:
        raise Refused(403, "it is not signed with its token")


def _refuse_a_second_machine(token: Token, name: str, call: Call) -> None:
    if name in token.nodes:
        raise Refused(410, f"the token of {name} was used. {_renew(token)}")
    first = token.calls.get(name)
    if first and not call.is_of_the_same_machine(first):
        raise Refused(
            409,
            f"another machine called with the token of {name} before, {_differences(first, call)}. "
            "If this one was made anew, give it a new token; else somebody has its user data. "
            + _renew(token),
        )


def _differences(first: Call, second: Call) -> str:
    names = [
        name for name, value in asdict(first).items() if name != "nonce" and value != asdict(second)[name]
    ]
    return f"differing in {' and '.join(names).replace('_', ' ')}"


def _names(token: Token) -> str:
    return ", ".join(f"{name} at {address}" for name, address in token.machines.items())


def _renew(token: Token) -> str:
    return f"provision restore {' '.join(token.machines)} --user-data DIR makes another"


def answer(name: str, *, user: str, authorized_key: str) -> str:
    """What a machine is told: its name, who the controller logs in as, and with which key."""
    return json.dumps({"name": name, "user": user, "authorized_key": authorized_key})
