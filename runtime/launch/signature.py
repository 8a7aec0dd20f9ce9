"""Signing certificates by OpenSSH (`ssh-keygen -Y`) with the cluster's key, and keeping them on a node."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from runtime.errors import BadInput
from runtime.launch.certificate import IsSigned
from runtime.launch.supervisor import complete

CLUSTER_KEY = "~/.ssh/clusterwright_ed25519"
# What a signature is for; one made for something else does not count.
_NAMESPACE = "clusterwright-smoke"
_SIGNER = "cluster"


def sign(payload: bytes, key: Path) -> str:
    """The signature, in OpenSSH's armoured form.

    Raises:
        BadInput: the key cannot sign.
    """
    return _keygen("sign", ["-Y", "sign", "-n", _NAMESPACE, "-f", str(key)], key, payload)


def verifier(key: Path) -> IsSigned:
    """Tells whether a signature over a payload was made with this key.

    Raises:
        BadInput: there is no such key.
    """
    public = _keygen("verify", ["-y", "-f", str(key)], key)

    def is_signed(payload: bytes, signature: str) -> bool:
        with tempfile.TemporaryDirectory() as folder:
            allowed, given = Path(folder, "allowed"), Path(folder, "signature")
            allowed.write_text(f"{_SIGNER} {public}")
            given.write_text(signature)
            words = ["-Y", "verify", "-f", str(allowed), "-I", _SIGNER, "-n", _NAMESPACE, "-s", str(given)]
            return complete(["ssh-keygen", *words], given=payload).status == 0

    return is_signed


def _keygen(purpose: str, words: Sequence[str], key: Path, given: bytes = b"") -> str:
    done = complete(["ssh-keygen", *words], given=given)
    if done.status != 0:
        raise BadInput(
            f"{purpose} certificates with the key {key}",
            found=done.errors.strip() or f"ssh-keygen ended with {done.status}",
            fix="Run the role ssh_trust, which gives it to the cluster's user; or pass --key.",
        )
    return done.out


def put_certificate(path: Path, text: str) -> str:
    """Writes this node's certificate, or removes it where there is no text; what kept it from that."""
    try:
        if not text:
            path.unlink(missing_ok=True)
            return ""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        partial.write_text(text)
        partial.replace(path)
    except OSError as e:
        return f"{path}: {e.strerror}"
    return ""
