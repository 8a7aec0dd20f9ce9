"""What nodes say of their models, put together. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from provision.errors import BadInput
from provision.store.node.manifest import is_digest, is_name

_RATE = re.compile(r"(\d+(?:\.\d+)?)\s*([kMG]?)bit(?:/s)?", re.IGNORECASE)
_FACTORS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A generation of a model: its bytes, the nodes that hold it, and those whose name leads to it."""

    name: str
    digest: str
    bytes: int
    held_by: tuple[str, ...]
    used_by: tuple[str, ...]


def bytes_per_second(text: str) -> float:
    """Of a cap as people say it: 200Mbit, 1Gbit; 0 for none.

    Raises:
        BadInput: it is no rate.
    """
    if not text:
        return 0.0
    found = _RATE.fullmatch(text.strip())
    rate = float(found[1]) * _FACTORS[found[2].lower()] / 8 if found else 0.0
    if rate < 1000:
        raise BadInput(f"send no more than {text!r}", found="it is no rate", fix="Say --limit 200Mbit.")
    return rate


def refuse_bad_name(name: str) -> str:
    """Raises:
    BadInput: a folder may not be called so.
    """
    if not is_name(name):
        found = (
            "a name has letters, digits, dots, dashes and underscores, and begins with one of the first two"
        )
        raise BadInput(f"call a model {name!r}", found=found, fix="Say another --name.")
    return name


def models_in(said: Mapping[str, Mapping[str, Any]]) -> list[Model]:
    """Every generation on any node, by name; what is not as agreed is left out."""
    held: dict[tuple[str, str], dict[str, int]] = {}
    used: dict[tuple[str, str], list[str]] = {}
    for node, answer in said.items():
        for tree in _listed(answer.get("trees")):
            if isinstance(tree, dict) and is_name(tree.get("name")) and is_digest(tree.get("digest")):
                size = tree.get("bytes")
                at = held.setdefault((tree["name"], tree["digest"]), {})
                at[node] = size if type(size) is int else 0
        active = answer.get("active")
        for name, digests in active.items() if isinstance(active, dict) else ():
            if _listed(digests) and is_digest(digests[-1]):
                used.setdefault((name, digests[-1]), []).append(node)
    return [
        Model(
            name=name,
            digest=digest,
            bytes=max(nodes.values()),
            held_by=tuple(nodes),
            used_by=tuple(used.get((name, digest), ())),
        )
        for (name, digest), nodes in sorted(held.items())
    ]


def generation_before(name: str, said: Mapping[str, Mapping[str, Any]]) -> str:
    """The digest that a name led to before, the same on all nodes and held by all of them.

    Raises:
        BadInput: there is none, or nodes do not agree.
    """
    asked = f"have {name} lead to what it led to before"
    found = {}
    for node, answer in said.items():
        active = answer.get("active")
        digests = _listed(active.get(name)) if isinstance(active, dict) else []
        held = {tree.get("digest") for tree in _listed(answer.get("trees")) if isinstance(tree, dict)}
        found[node] = next((one for one in digests[-2::-1] if is_digest(one) and one in held), "")
    if len(set(found.values())) > 1:
        shown = ", ".join(f"{node}: {digest[:12] or 'none'}" for node, digest in found.items())
        raise BadInput(asked, found=f"nodes do not agree ({shown})", fix="Fetch the one that you want again.")
    digest = next(iter(found.values()), "")
    if not digest:
        raise BadInput(
            asked, found="there is no generation before", fix=f"provision model list shows {name}."
        )
    return digest


def _listed(found: object) -> list[Any]:
    return found if isinstance(found, list) else []
