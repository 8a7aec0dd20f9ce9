"""Signing certificates by OpenSSH (`ssh-keygen -Y`), who may, and keeping them on a node.

A node signs with its host key, whose public half all nodes know already; the controller with a key that no
node has. Each has a namespace of its own: what one signed never counts as the other's.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from runtime.edges import private_files
from runtime.edges.process import complete
from runtime.errors import BadInput
from runtime.gate.certificate import CONTROLLER, Trust

HOST_KEY = "/etc/ssh/ssh_host_ed25519_key"
# Who may sign what, as ssh-keygen(1) reads it under ALLOWED SIGNERS; role runtime writes it.
SIGNERS = "/etc/clusterwright/signers"
_OF_CONTROLLER, _OF_NODE = "clusterwright-smoke-controller", "clusterwright-smoke-node"
_WRITE_SIGNERS = "Run the role runtime (site.yml), which writes it."


def sign(payload: bytes, key: Path) -> str:
    """The signature of this node, in OpenSSH's armoured form.

    Raises:
        BadInput: the key cannot sign.
    """
    return _keygen(["-Y", "sign", "-n", _OF_NODE, "-f", str(key)], key, payload)


def signer_of(key: Path, signers: Path) -> str:
    """The node whose key this is; empty where no node of the cluster has it.

    Raises:
        BadInput: the key or the list cannot be read.
    """
    public = _keygen(["-y", "-f", str(key)], key).split()[:2]
    return next((name for name, _, *held in _entries(signers) if held[:2] == public), "")


def trust_in(signers: Path) -> Trust:
    """Who may sign certificates, by the list that this node has.

    Raises:
        BadInput: there is no such list.
    """
    names = frozenset(name for name, *_ in _entries(signers)) - {CONTROLLER}

    def is_signed(payload: bytes, signature: str, signer: str) -> bool:
        namespace = _OF_CONTROLLER if signer == CONTROLLER else _OF_NODE
        with tempfile.TemporaryDirectory() as folder:
            given = Path(folder, "signature")
            given.write_text(signature)
            words = ["-Y", "verify", "-f", str(signers), "-I", signer, "-n", namespace, "-s", str(given)]
            done = complete(["ssh-keygen", *words], given=payload)
        if done.status in (124, 127):
            fix = "Install openssh-client on this node."
            raise BadInput("check who signed a certificate", found=done.errors, fix=fix)
        return done.status == 0

    return Trust(nodes=names, is_signed=is_signed)


def _entries(signers: Path) -> list[list[str]]:
    """Name, options, type and key of each line."""
    try:
        lines = signers.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as e:
        found = e.strerror if isinstance(e, OSError) else "it is no text"
        raise BadInput(
            f"read who may sign certificates in {signers}", found=str(found), fix=_WRITE_SIGNERS
        ) from e
    entries = [line.split() for line in lines if line and not line.startswith("#")]
    if not entries or any(len(entry) < 4 for entry in entries):
        raise BadInput(
            f"read who may sign certificates in {signers}", found="it is damaged", fix=_WRITE_SIGNERS
        )
    return entries


def _keygen(words: Sequence[str], key: Path, given: bytes = b"") -> str:
    done = complete(["ssh-keygen", *words], given=given)
    if done.status != 0:
        raise BadInput(
            f"sign certificates with the key {key}",
            found=done.errors.strip() or f"ssh-keygen ended with {done.status}",
            fix="Pass the node's own host key (--key), as root; or have the controller run the test.",
        )
    return done.out


def put_certificate(path: Path, text: str) -> str:
    """Writes this node's certificate, or removes it where there is no text; what kept it from that."""
    try:
        if not text:
            path.unlink(missing_ok=True)
            return ""
        path.parent.mkdir(parents=True, exist_ok=True)
        private_files.write(path, text, 0o666)
    except OSError as e:
        return f"{path}: {e.strerror}"
    return ""
