"""Who may sign certificates of the smoke test, as ssh-keygen(1) reads it under ALLOWED SIGNERS. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from provision.smoke.certificate import NAMESPACE, SIGNER

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
