"""The stand-in Miniconda's installer: a shell script that carries conda's packages, unpacked."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from provision.lab.mirror.conda_archive import SUBDIR, digests
from provision.lab.mirror.standin.tree import PYTHON, Tree

_TEMPLATE = Path(__file__).with_name("installer.sh")
# Where these packages say they come from: a name that is reserved for places that do not exist (RFC 2606).
_ORIGIN = f"https://stand-in.invalid/{SUBDIR}"
# The unpacked packages, and again the files that hold the prefix and cannot be linked.
_SPACE_FACTOR = 1.3
_HEADER_BYTES = 16384
_GZIP_LEVEL = 3


def write_installer(trees: Sequence[Tree], packages: Mapping[str, Path], target: Path) -> None:
    """Writes the installer to `target`.

    Args:
        trees: the packages of the base environment, laid out.
        packages: the same packages packed, by their names.
    """
    payload, unpacked_bytes = _payload(trees, packages)
    header = render_header(
        target.name,
        payload_sha256=hashlib.sha256(payload).hexdigest(),
        needed_kib=int(unpacked_bytes * _SPACE_FACTOR / 1024),
    )
    target.write_bytes(header + payload)
    target.chmod(0o755)


def render_header(name: str, *, payload_sha256: str, needed_kib: int) -> bytes:
    """The script before the payload, filled up to a fixed length: its own length is one of its values."""
    values = {
        "NAME": name,
        "PAYLOAD_OFFSET": str(_HEADER_BYTES + 1),
        "PAYLOAD_SHA256": payload_sha256,
        "NEEDED_KIB": str(needed_kib),
        "PYTHON": PYTHON,
    }
    text, _, _ = _TEMPLATE.read_text().partition("@@END_HEADER@@")
    for key, value in values.items():
        text = text.replace(f"@@{key}@@", value)
    header = text.encode()
    assert len(header) < _HEADER_BYTES
    return header + b"#" * (_HEADER_BYTES - len(header) - 1) + b"\n"


def explicit_file(trees: Sequence[Tree]) -> str:
    """What conda installs from its package cache: conda's explicit format."""
    return "@EXPLICIT\n" + "".join(f"{_ORIGIN}/{tree.index.dist}.conda\n" for tree in trees)


def _payload(trees: Sequence[Tree], packages: Mapping[str, Path]) -> tuple[bytes, int]:
    """pkgs/ as conda keeps it, as a tar with gzip (a bare node has no zstd), and its bytes when unpacked."""
    buffer = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=_GZIP_LEVEL, mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w|", format=tarfile.GNU_FORMAT) as archive,
    ):
        for tree in trees:
            archive.add(tree.folder, f"pkgs/{tree.index.dist}", filter=_owned_by_root)
            record = json.dumps(_record(tree, packages[tree.index.name]), indent=1).encode()
            _add(archive, f"pkgs/{tree.index.dist}/info/repodata_record.json", record)
        _add(archive, "pkgs/explicit.txt", explicit_file(trees).encode())
        _add(archive, "pkgs/urls.txt", explicit_file(trees).partition("\n")[2].encode())
        _add(archive, "pkgs/urls", b"")
        unpacked_bytes = archive.offset
    return buffer.getvalue(), unpacked_bytes


def _record(tree: Tree, package: Path) -> dict[str, object]:
    """What conda writes beside a package that it has fetched."""
    return {
        **tree.index.as_json(),
        **digests(package),
        "channel": _ORIGIN,
        "fn": package.name,
        "url": f"{_ORIGIN}/{package.name}",
    }


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    member.mode = 0o644
    archive.addfile(member, io.BytesIO(content))


def _owned_by_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member
