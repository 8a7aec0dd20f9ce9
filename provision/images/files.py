"""The folder that `image bake` writes: two layers, their sha256, and a signed manifest."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zstandard

from provision.edges import process, ssh_signature
from provision.edges.files import write_file
from provision.errors import BadInput, CommandFailed
from provision.images import manifest
from provision.images.programs import PROGRAMS, secret_kinds

SYSTEM, DATA, MANIFEST = "system.tar.zst", "data.raw.zst", "manifest.json"
_DIGEST = PROGRAMS.parents[1] / "conda_env" / "files" / "environment_digest.py"
_UNPACK_SECONDS = 1800.0
# In a mount namespace of its own, so that nothing stays mounted.
_LOOK = """set -eu
mount --options loop,ro,noload -- "$1" "$2"
shift
exec "$2" "$3" scan --root "$4" --data "$1" --digest-script "$5" --secrets "$6"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One compressed file: its sha256 (hex), its size and what it unpacks to, in bytes."""

    sha256: str
    bytes: int
    unpacked_bytes: int


def write_layer(
    path: Path, chunks: Iterable[bytes], on_bytes: Callable[[int], None], *, spared_bytes: int = 1 << 30
) -> Layer:
    """Compresses what comes into `path`, which appears when it is complete; nobody else can read it.

    Raises:
        CommandFailed: no more than `spared_bytes` of the disk would be left, which others need.
    """
    partial = path.with_name(f"{path.name}.partial")
    partial.unlink(missing_ok=True)
    unpacked = 0
    try:
        with open(partial, "xb", opener=_for_its_owner) as file:
            with zstandard.ZstdCompressor(level=3, threads=-1).stream_writer(file, closefd=False) as packed:
                for chunk in chunks:
                    _refuse_full_disk(path, unpacked, spared_bytes)
                    packed.write(chunk)
                    unpacked += len(chunk)
                    on_bytes(len(chunk))
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)
    return Layer(sha256=sha256_of(path), bytes=path.stat().st_size, unpacked_bytes=unpacked)


def _refuse_full_disk(path: Path, unpacked: int, spared_bytes: int) -> None:
    if shutil.disk_usage(path.parent).free <= spared_bytes:
        raise CommandFailed(
            f"write {path}",
            found=f"its disk has less than {spared_bytes / 2**30:.0f} GiB left, {unpacked / 2**30:.1f} GiB "
            "having come; what was begun is removed",
            fix="Name a folder on a larger disk; a node that sends more than its disks hold is not yours.",
        )


def _for_its_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sign_and_write(folder: Path, image: Mapping[str, Any], *, key: Path) -> None:
    """Signs and writes the manifest; a reader finds the old one or the new one."""
    write_file(folder / MANIFEST, manifest.sealed(image, sign(image, key)))


def sign(image: Mapping[str, Any], key: Path) -> str:
    return ssh_signature.sign(manifest.payload(image), key=key, namespace=manifest.NAMESPACE)


def read_manifest(folder: Path, *, key: Path | None) -> dict[str, Any]:
    """The description of the image in `folder`, once its signature and the layers' sha256 are right.

    Args:
        key: the controller's, its public half beside it; None for who has none and looks at the sha256 alone.

    Raises:
        BadInput: something is missing, altered, or signed with another key.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise BadInput(f"read {path}", found="there is none", fix="Name a folder that `image bake` wrote.")
    if path.stat().st_size > manifest.MOST_BYTES:
        found = f"it has {path.stat().st_size} bytes, and at most {manifest.MOST_BYTES} are read"
        raise BadInput(f"read {path}", found=found, fix="Bake the image again.")
    image, signature = manifest.parse(path.read_text(errors="replace"), where=str(path))
    if key:
        refuse_foreign(image, signature, key, where=str(path))
    manifest.check_baked(image, (SYSTEM, DATA), where=str(path))
    for name, layer in image["layers"].items():
        _check(folder / name, layer["sha256"])
    return image


def _check(path: Path, sha256: str) -> None:
    found = sha256_of(path) if path.is_file() else "no file"
    if found != sha256:
        raise BadInput(
            f"use {path}", found=f"its sha256 is {found}, the manifest says {sha256}", fix="Copy it again."
        )


def refuse_foreign(image: Mapping[str, Any], signature: str, key: Path, *, where: str) -> None:
    """Refuses a description that the controller's key did not sign.

    Raises:
        BadInput: and whether an earlier version signed it, with a key that every node had.
    """
    if _is_signed(image, signature, _public_keys(key.with_name(f"{key.name}.pub"))):
        return
    of_cluster = [
        *_public_keys(key.with_name("cluster_key.pub")),
        *_public_keys(key.with_name("retired_keys.pub")),
    ]
    found = (
        "an earlier version signed it, with the cluster's key, which every node has"
        if _is_signed(image, signature, of_cluster)
        else f"it is not signed with {key}, or was altered since"
    )
    raise BadInput(f"trust {where}", found=found, fix="Bake the image again (provision image bake).")


def _public_keys(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.is_file() else []


def _is_signed(image: Mapping[str, Any], signature: str, public_keys: Iterable[str]) -> bool:
    text, namespace = manifest.payload(image), manifest.NAMESPACE
    return any(
        ssh_signature.is_signed(text, signature, public_key=key, namespace=namespace) for key in public_keys
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpacked:
    """An image as a lab starts from it: the tree of the system disk, and the data disk."""

    root: Path
    data: Path


def unpack(folder: Path, image: Mapping[str, Any], cache: Path) -> Unpacked:
    """Unpacks both layers into `cache`, once for each content; whoever holds the folder clears it."""
    place = cache / "images" / manifest.content_of(image)
    done = Unpacked(root=place / "root", data=place / "data.raw")
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not done.root.exists():
        partial = place / "root.partial"
        process.run(("rm", "-rf", partial), timeout_seconds=_UNPACK_SECONDS)
        partial.mkdir(parents=True)
        words = ("tar", "--extract", "--zstd", "--file", folder / SYSTEM, "--directory", partial)
        kept = ("--numeric-owner", "--same-permissions", "--xattrs", "--xattrs-include=*", "--acls")
        process.run((*words, *kept), timeout_seconds=_UNPACK_SECONDS)
        partial.rename(done.root)
    if not done.data.exists():
        partial = place / "data.partial"
        expand = ("zstd", "--decompress", "--quiet", "--force", "--sparse", folder / DATA, "-o", partial)
        process.run(expand, timeout_seconds=_UNPACK_SECONDS)
        partial.rename(done.data)
    return done


def scan(unpacked: Unpacked) -> list[str]:
    """What of one machine is left in an image, one phrase a finding; needs root.

    Raises:
        CommandFailed: the data disk's file system cannot be read.
    """
    with tempfile.TemporaryDirectory() as place:
        looked = process.run(
            (
                *("unshare", "--mount", "--", "sh", "-c", _LOOK, "look", unpacked.data, place),
                *(sys.executable, PROGRAMS / "image_tree.py", unpacked.root, _DIGEST, secret_kinds()),
            ),
            timeout_seconds=_UNPACK_SECONDS,
            check=False,
        )
    if looked.returncode not in (0, 1) or not looked.stdout.startswith("["):
        raise CommandFailed(
            f"look into {unpacked.data}", found=looked.stderr.strip()[-500:], fix="Bake the image again."
        )
    return [manifest.finding(found) for found in json.loads(looked.stdout)]
