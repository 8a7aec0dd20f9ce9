"""What the controller signs of a smoke test that it ran, and what it does not. Pure."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from provision.errors import BadInput

# As the runtime on the nodes has them.
SIGNER, NAMESPACE = "@controller", "clusterwright-smoke-controller"
# A node's clock may be off by that much.
_CLOCK = timedelta(minutes=10)
_FIX = (
    "Look at the node that ran the test: it says what no such test says. If it is sound, run the test again."
)


def to_sign(document: Mapping[str, Any], *, nodes: Collection[str], valid_days: float, now: datetime) -> str:
    """The certificate to be signed, in the form that is signed; empty where the test made none.

    Args:
        document: the result that the node wrote; a node's word, held against what was asked.
        nodes: the nodes of the inventory.
        valid_days: what was asked for.

    Raises:
        BadInput: it says what was not asked.
    """
    made = document.get("certificate")
    if made is None:
        return ""
    problem = _problem(document, made, nodes, timedelta(days=valid_days), now)
    if problem:
        raise BadInput("sign the certificate of a smoke test", found=problem, fix=_FIX)
    return json.dumps(made, sort_keys=True, separators=(",", ":"))


def _problem(
    document: Mapping[str, Any], made: Any, nodes: Collection[str], valid: timedelta, now: datetime
) -> str:
    if document.get("verdict") != "pass" or document.get("left_out") or document.get("findings"):
        return "the test did not pass, or left something out"
    try:
        tested, signer = list(made["nodes"]), made["signer"]
        issued, expires = (datetime.fromisoformat(made[name]) for name in ("issued", "expires"))
        times_fit = issued >= now - timedelta(hours=1) and expires <= now.astimezone(UTC) + valid + _CLOCK
    except (KeyError, TypeError, ValueError) as e:
        return f"it is no certificate ({e!r})"
    if signer != SIGNER:
        return f"it is for {str(signer)[:80]!r} to sign"
    if strangers := [str(name)[:80] for name in tested if name not in nodes] or (
        [] if tested else ["nobody"]
    ):
        return f"it is for {', '.join(strangers)}, and the nodes of the inventory are {', '.join(nodes)}"
    if times_fit:
        return ""
    return (
        f"that node's clock is not this controller's: there the test was at {made['issued']}, good until "
        f"{made['expires']}, and here it is {now.isoformat(timespec='seconds')}. Set the one that is wrong"
    )


def sealed(certificate: str, signature: str) -> str:
    """The text that the nodes keep."""
    return json.dumps({"certificate": json.loads(certificate), "signature": signature})


_OF_NODE = "clusterwright-smoke-node"


def signers_text(nodes: Sequence[str], ledger: Mapping[str, Sequence[str]], controller_key: str) -> str:
    """The file: a line for each key, with the one purpose that it signs for.

    Args:
        nodes: the nodes of the inventory; what the ledger knows of others counts for nothing.
        ledger: host keys by node.
        controller_key: public half of the controller's; empty leaves it out.
    """
    entries = [(SIGNER, NAMESPACE, key) for key in [controller_key] if key]
    entries += [(name, _OF_NODE, key) for name in nodes for key in ledger.get(name, ())]
    lines = [
        f'{name} namespaces="{namespace}" {" ".join(key.split()[:2])}\n' for name, namespace, key in entries
    ]
    return "# Written by site.yml: who may sign certificates of the smoke test.\n" + "".join(lines)
