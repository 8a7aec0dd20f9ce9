"""Builds the base image once and keeps it in the user's cache folder."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable
from pathlib import Path

from provision.bundle.apt_sources import own_release, sources_for
from provision.edges import process
from provision.errors import BadInput, MissingRequirement
from provision.lab.image import guest, recipe
from provision.lab.lock import hold

_BUILD_SECONDS = 1800.0


def image_of(cache: Path, release: str = "") -> Path:
    """Where the base image of a release lies (made or not): a root file system, never written to.

    Args:
        cache: the user's cache folder of this product, ~/.cache/clusterwright.
        release: a code name such as trixie; "" is this machine's own.
    """
    name = recipe.digest(release=release or own_release(), architecture=platform.machine())
    return cache / "base" / name / "root"


def ensure_image(image: Path, *, release: str, report: Callable[[str], None]) -> None:
    """Builds the base image at `image`, which `image_of` named for that release, unless it is there.

    Side effects: about half a minute of work and 250 MB on the disk.

    Raises:
        BadInput: it is another recipe's: a lab was made from it, and it has gone from the cache since.
    """
    with hold("the base image", wait_seconds=_BUILD_SECONDS):
        if image.exists():
            return
        if image != image_of(image.parents[2], release):
            raise BadInput(
                f"build the base image {image.parent.name}",
                found="this version of Clusterwright makes another one",
                fix="Take down the lab that was made from it (provision lab down), then bring it up again.",
            )
        _build(image, release, report)


def _build(image: Path, release: str, report: Callable[[str], None]) -> None:
    partial = image.with_name("root.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    sources = image.with_name("sources.list")
    sources.write_text("\n".join(sources_for(release)) + "\n")
    words = recipe.mmdebstrap(release=release or own_release(), target=partial, sources=sources)
    lines: list[str] = []

    def on_line(line: str) -> None:
        lines.append(line)
        report(f"build image: {line.removeprefix('I: ')}")

    status = process.stream(words, timeout_seconds=_BUILD_SECONDS, on_line=on_line)
    if status != 0:
        raise MissingRequirement(
            "build the nodes' base image",
            found="\n".join([f"mmdebstrap ended with status {status}", *lines[-15:]]),
            fix="Check that `apt-get update` works on this machine, then run the command again.",
        )
    _customise(partial)
    partial.rename(image)


def _customise(root: Path) -> None:
    """Makes of a set of packages what a cloud's image is: no identity, no keys, our files."""
    for key in (root / "etc" / "ssh").glob("ssh_host_*"):
        key.unlink()
    for mode, files in ((0o644, guest.FILES), (0o755, guest.PROGRAMS)):
        for name, text in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            path.chmod(mode)
    _systemctl(root, "enable", *guest.UNIT_NAMES)
    _systemctl(root, "mask", *recipe.MASKED)


def _systemctl(root: Path, verb: str, *units: str) -> None:
    process.run(("systemctl", f"--root={root}", verb, *units), timeout_seconds=60)
