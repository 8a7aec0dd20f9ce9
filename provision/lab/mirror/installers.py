"""Miniconda installers: how a mirror announces one, and how one serves the mirror itself."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from provision.edges.fetch import sha256_of
from provision.edges.process import run

# A name that stays while versions change.
_CURRENT = "current.sh"


def announce(installer: Path) -> None:
    """Writes SHA256SUMS and the link current.sh beside an installer."""
    (installer.parent / "SHA256SUMS").write_text(f"{sha256_of(installer)}  {installer.name}\n")
    link = installer.parent / _CURRENT
    link.unlink(missing_ok=True)
    link.symlink_to(installer.name)


def installer_in(folder: Path) -> Path:
    """The installer that was announced in a folder."""
    return folder / (folder / _CURRENT).readlink()


@contextmanager
def conda_of(installer: Path, *, environment: Mapping[str, str]) -> Iterator[Path]:
    """The program `conda` of an installation that lasts as long as the block.

    Raises:
        CommandFailed: the installer does not do its work.
    """
    with tempfile.TemporaryDirectory(prefix="clusterwright-") as scratch:
        prefix = Path(scratch) / "conda"
        run(
            ["sh", installer, "-b", "-p", prefix],
            timeout_seconds=300,
            # What it would write to the user's home belongs to nobody.
            env={**environment, "HOME": scratch},
        )
        yield prefix / "bin" / "conda"
