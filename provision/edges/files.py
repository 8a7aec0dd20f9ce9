"""Files of this machine that others read while they are written."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from errno import EISDIR
from pathlib import Path

from provision.errors import BadInput


def text_of(path: Path) -> str:
    """A file's text with the ends of its lines as they are; other bytes than UTF-8 too, for `write_file`."""
    return path.read_bytes().decode(errors="surrogateescape")


def write_file(path: Path, text: str, *, mode: int = 0o644) -> None:
    """Writes a file by renaming: nobody sees half of it, nor a secret before it has its mode."""
    path.parent.mkdir(mode=0o755 if mode & 0o077 else 0o700, parents=True, exist_ok=True)
    descriptor, new = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as stream:
            stream.write(text)
            os.fchmod(descriptor, mode)
        Path(new).replace(path)
    except BaseException as e:
        Path(new).unlink(missing_ok=True)
        if isinstance(e, OSError):
            e.filename = str(path)  # a full disk names no file, and a rename names ours
        raise


def refuse_unwritable(paths: Iterable[Path]) -> None:
    """Tries the folders of files that will be written: before work of minutes, not after it.

    Raises:
        BadInput: one cannot be written.
    """
    for path in paths:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                raise IsADirectoryError(EISDIR, "it is a folder")
            with tempfile.TemporaryFile(dir=path.parent):
                pass
        except OSError as e:
            fix = "Name a file in a folder that you can write to."
            raise BadInput(f"write {path}", found=e.strerror or str(e), fix=fix) from e
