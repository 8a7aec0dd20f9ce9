"""What a site believes of a bundle: the one whose digest its address ends with, and what hangs on that."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from provision.bundle.deb import KEY
from provision.bundle.folder import read
from provision.bundle.plan import APT, ENVIRONMENTS
from provision.edges.fetch import sha256_of
from provision.errors import BadInput
from provision.store.node.manifest import digest_of, is_digest
from provision.store.node.tree import Tree

_PATH = f"{APT}/{KEY}"
_MOST_BYTES = 1 << 20


def apt_key(folder: str, address: str) -> str:
    """The public key that signs a bundle's packages, from the bundle's folder on this machine.

    The chain: the digest at the end of the address, bundle.json, this key, the Release file, each package.

    Args:
        folder: cluster_bundle_path.
        address: cluster_bundle_url.

    Raises:
        BadInput: the address names no digest, or the folder holds another bundle, or another key.
    """
    asked = f"install from the bundle {address}"
    digest = digest_in(address)
    if not digest:
        fix = "Write it as `provision bundle serve` tells it: http://10.0.0.9:8090/DIGEST."
        raise BadInput(asked, found="cluster_bundle_url does not end with a bundle's digest", fix=fix)
    if not folder:
        fix = "Set cluster_bundle_path to the bundle's folder on the controller."
        raise BadInput(asked, found="cluster_bundle_path is empty", fix=fix)
    bundle = read(Path(folder).resolve())
    if bundle.digest != digest:
        fix = "Name the folder that the site means, or, where it is to have this bundle, the new digest."
        raise BadInput(asked, found=f"{folder} holds the bundle {bundle.digest}", fix=fix)
    wanted = next((file.sha256 for file in bundle.contents.files if file.path == _PATH), "")
    try:
        with Tree(str(bundle.folder)) as tree, os.fdopen(tree.open(_PATH), "rb") as stream:
            key = stream.read(_MOST_BYTES)
    except OSError:
        key = b""
    if not wanted or digest_of(key) != wanted:
        fix = f"provision bundle verify {folder}"
        raise BadInput(asked, found=f"{_PATH} in {folder} is not what its manifest says", fix=fix)
    return key.decode("ascii", errors="replace")


def other_locks(folder: str, locks: Sequence[str]) -> list[str]:
    """Those of a site's locks that a bundle was not made for: it lacks what they name.

    Args:
        folder: of a bundle whose digest is the one that the site names.
        locks: files of this machine.
    """
    files = read(Path(folder).resolve()).contents.files
    known = {file.sha256 for file in files if file.path.startswith(f"{ENVIRONMENTS}/")}
    return [lock for lock in locks if Path(lock).is_file() and sha256_of(Path(lock)) not in known]


def digest_in(address: str) -> str:
    """The digest at the end of a bundle's address; "" where there is none."""
    last = address.rstrip("/").rpartition("/")[2]
    return last if is_digest(last) else ""
