"""Files of this machine that others read while they are written."""

from __future__ import annotations

import os
from collections.abc import Iterable
from errno import EISDIR
from pathlib import Path
from tempfile import TemporaryFile

from provision.errors import BadInput


def write_file(path: Path, text: str, *, mode: int = 0o644) -> None:
    """Writes a file by renaming: a reader never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    new.write_text(text)
    new.chmod(mode)
    new.replace(path)


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
            with TemporaryFile(dir=path.parent):
                pass
        except OSError as e:
            fix = "Name a file in a folder that you can write to."
            raise BadInput(f"write {path}", found=e.strerror or str(e), fix=fix) from e
