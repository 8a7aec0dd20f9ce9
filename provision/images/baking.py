"""Takes the two layers of a node that image.yml has cleaned."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from provision.edges import ssh
from provision.errors import CommandFailed
from provision.images import manifest
from provision.images.files import DATA, SYSTEM, refuse_foreign, sign_and_write, write_layer
from provision.images.programs import PROGRAMS, image_program, secret_kinds
from provision.model import Machine

_ROOT = "/run/clusterwright/image/root"
_IMAGE = f"{_ROOT}/etc/clusterwright/image.json"
_SILENCE_SECONDS = 300.0
_LOOK_SECONDS = 3600.0  # at all files of both disks
_SIZE = 'blockdev --getsize64 "$(findmnt --noheadings --output SOURCE "$1")"'
_MOST_BYTES = 1 << 46  # of a data disk, 64 TiB
_DISTRUST = "Bake again; where it says so once more, somebody else answers there (provision audit)."
_HEAD = struct.Struct(">QQ")
_ZEROS = bytes(1 << 20)
OnBytes = Callable[[str, int], None]


def system_layer(root: str, data_path: str) -> tuple[str, ...]:
    """The words that write a system disk as a tar; mount points stay, without what is in or below them.

    Args:
        data_path: where the data disk is mounted, which is a layer of its own.
    """
    places = ("/proc", "/sys", "/dev", "/run", "/tmp", re.sub(r"([\\*?\[\]])", r"\\\1", data_path))
    return (
        *("tar", "--create", "--directory", root, "--one-file-system", "--numeric-owner", "--sparse"),
        *("--xattrs", "--xattrs-include=*", "--acls"),
        *("--warning=no-file-changed", "--warning=no-file-ignored", "--anchored"),
        *(f"--exclude=.{place}/*" for place in places),
        ".",
    )


def take(machine: Machine, folder: Path, *, key: Path, since: str, on_bytes: OnBytes) -> dict[str, Any]:
    """Writes both layers and the manifest into `folder`; returns what the manifest says.

    Args:
        key: the controller's, which has signed what image.yml left on the node, and signs the manifest.
        since: when image.yml began.
        on_bytes: gets the layer's name and how many more bytes of it have come.

    Raises:
        BadInput: what the node shows is not what image.yml left there.
    """
    where = f"{machine.name}:{_IMAGE}"
    image, signature = manifest.parse(
        ssh.run(machine, ("cat", _IMAGE), timeout_seconds=60).stdout, where=where
    )
    refuse_foreign(image, signature, key, where=where)
    manifest.refuse_another(image, node=machine.name, since=since, where=where)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    words = system_layer(_ROOT, image["data_path"])
    system = ssh.download(machine, words, timeout_seconds=_SILENCE_SECONDS, accepted=(0, 1))  # 1: a file grew
    send = ("python3", "-c", (PROGRAMS / "send_disk.py").read_text(), image["data_path"])
    size = _size_of_disk(machine, image["data_path"])
    data = whole(ssh.download(machine, send, timeout_seconds=_SILENCE_SECONDS), node=machine.name, size=size)
    layers = {
        name: asdict(write_layer(folder / name, chunks, partial(on_bytes, name)))
        for name, chunks in ((SYSTEM, system), (DATA, data))
    }
    image = {**image, "layers": layers}
    sign_and_write(folder, image, key=key)
    return image


def _size_of_disk(machine: Machine, mount_path: str) -> int:
    said = ssh.run(machine, ("sh", "-c", _SIZE, "size", mount_path), timeout_seconds=60).stdout.strip()
    if (
        not (said.isascii() and said.isdecimal())
        or len(said) > len(str(_MOST_BYTES))
        or int(said) > _MOST_BYTES
    ):
        raise CommandFailed(
            f"ask {machine.name} for the size of {mount_path}",
            found=f"it says {ascii(said)[:80]}, not a number of bytes up to {_MOST_BYTES}",
            fix=_DISTRUST,
        )
    return int(said)


def preview(machine: Machine, data_path: str) -> list[dict[str, Any]]:
    """What image_tree.py finds on a node as it is, with its data disk at that path.

    Rule, path, found, and whether image.yml mends it.
    """
    looked = ssh.run(
        machine,
        (
            "python3",
            "-c",
            image_program("image_tree.py"),
            "scan",
            "--root",
            "/",
            "--data",
            data_path,
            "--secrets",
            secret_kinds(),
        ),
        timeout_seconds=_LOOK_SECONDS,
        check=False,
    )
    try:
        found = manifest.findings_in(looked.stdout)
    except ValueError as e:
        said = looked.stderr.strip()[-500:]
        raise CommandFailed(
            f"look at the disks of {machine.name}",
            found=said or f"it does not answer as asked: {e}",
            fix="Run it again; image_tree.py runs with the node's own python3.",
        ) from e
    return [one for one in found if one["rule"] != "manifest"]


def release(machine: Machine) -> None:
    """Gives a node back what image.yml took off its disks."""
    ssh.run(machine, ("python3", "-c", image_program("live_view.py"), "end"), timeout_seconds=120)


def whole(records: Iterable[bytes], *, node: str, size: int) -> Iterator[bytes]:
    """The disk that send_disk.py's records describe, zeros included, in order.

    Args:
        node: who sends them.
        size: of its disk, in bytes, as it said before.

    Raises:
        CommandFailed: they are not what send_disk.py writes of a disk of that size.
    """
    rest, at, has_ended = bytearray(), 0, False
    for chunk in records:
        rest += chunk
        while len(rest) >= _HEAD.size and not has_ended:
            offset, length = _HEAD.unpack_from(rest)
            if length > len(_ZEROS) or not at <= offset <= size - length:
                raise _unlike(node, f"a record of {length} bytes at {offset}, after {at} of {size}")
            if len(rest) < _HEAD.size + length:
                break
            yield from _zeros(offset - at)
            yield bytes(rest[_HEAD.size : _HEAD.size + length])
            del rest[: _HEAD.size + length]
            at, has_ended = offset + length, length == 0
        if has_ended and rest:
            raise _unlike(node, "more after the record that ends it")
    if not has_ended:
        raise _unlike(node, f"no record that ends it, after {at} bytes of {size}")


def _unlike(node: str, found: str) -> CommandFailed:
    return CommandFailed(f"read the data disk of {node}", found=f"it sent {found}", fix=_DISTRUST)


def _zeros(count: int) -> Iterator[bytes]:
    while count > 0:
        yield _ZEROS[:count]
        count -= len(_ZEROS)
