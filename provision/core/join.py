"""A machine made from an image asks the controller who it is: what it says, and what it may be answered."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_HOST_KEY = re.compile(r"(ssh|ecdsa|sk)-[a-z0-9@.-]+ [A-Za-z0-9+/=]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What a machine says of itself; `nonce` came from us, and counts once."""

    nonce: str
    image: str
    machine: str
    address: str
    host_keys: tuple[str, ...]


def signature(secret: str, text: str) -> str:
    """Shows that whoever wrote the text holds the secret: hexadecimal HMAC-SHA256 (RFC 2104)."""
    return hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()


def is_signed(secret: str, text: str, given: str) -> bool:
    return hmac.compare_digest(signature(secret, text), given)


def parse(text: str) -> Call:
    """A call from what a machine sent.

    Raises:
        ValueError: it is none.
    """
    try:
        found: Mapping[str, Any] = json.loads(text)
        words = {name: str(found[name]) for name in ("nonce", "image", "machine", "address")}
        keys = tuple(str(key) for key in found["host_keys"])
    except (TypeError, KeyError) as e:
        raise ValueError(f"it lacks {e}") from e
    if not keys or not all(_HOST_KEY.fullmatch(key) for key in keys):
        raise ValueError("its host keys are none")
    return Call(host_keys=keys, **words)


def answer(call: Call, names: Mapping[str, str], *, user: str, authorized_key: str) -> dict[str, str]:
    """The name of a machine whose address the inventory has, and how it is reached; else why it waits.

    Args:
        names: the inventory's names by address, of the nodes that are waited for.
        user: who the controller logs in as.
    """
    name = names.get(call.address)
    if name is None:
        return {"wait": f"the inventory gives {call.address} to no node that is waited for"}
    return {"name": name, "user": user, "authorized_key": authorized_key}
