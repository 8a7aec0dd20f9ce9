"""Signatures with ssh keys, by ssh-keygen (PROTOCOL.sshsig): a namespace keeps one purpose from another."""

from __future__ import annotations

import tempfile
from pathlib import Path

from provision.edges import process

_SIGNER = "clusterwright"
_SECONDS = 30.0


def sign(text: str, *, key: Path, namespace: str) -> str:
    """The armoured signature of a text.

    Raises:
        CommandFailed: the key cannot be read.
    """
    words = ("ssh-keygen", "-q", "-Y", "sign", "-n", namespace, "-f", key)
    return process.run(words, timeout_seconds=_SECONDS, stdin=text).stdout


def is_signed(text: str, signature: str, *, public_key: str, namespace: str) -> bool:
    """Whether the private half of `public_key` signed this text for `namespace`."""
    with tempfile.TemporaryDirectory() as scratch:
        allowed, given = Path(scratch, "allowed"), Path(scratch, "signature")
        allowed.write_text(f"{_SIGNER} {public_key}")
        given.write_text(signature)
        words = ("ssh-keygen", "-Y", "verify", "-f", allowed, "-I", _SIGNER, "-n", namespace, "-s", given)
        return process.run(words, timeout_seconds=_SECONDS, stdin=text, check=False).returncode == 0
