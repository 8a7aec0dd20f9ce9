"""Files that a command is asked to write."""

from __future__ import annotations

from collections.abc import Iterable
from errno import EISDIR
from pathlib import Path
from tempfile import TemporaryFile

from runtime.edges import private_files
from runtime.errors import BadInput


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


def write(path: Path, text: str) -> None:
    """Writes one of them whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    private_files.write(path, text, 0o666)
