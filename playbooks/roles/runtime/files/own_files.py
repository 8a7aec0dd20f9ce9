"""What a node holds of this project's wheel: python3 own_files.py PREFIX, or PREFIX clear to take it away.

Prints one digest over path and sha256 of each file in the wheel's folders, as runtime_wheel.py of
provision/environments makes it of the wheel; nothing where it is not installed. No RECORD is read: whoever
plants a file can write a line there, too. Left out are bytecode, and what pip adds to a wheel.
"""

from __future__ import annotations

import base64
import csv
import glob
import hashlib
import os
import shutil
import sys
import time
from collections.abc import Iterator

PACKAGES = ("provision", "runtime")  # wheels of before held the first, too
PROGRAMS = ("provision", "zerorun")
RECORDS = ".clusterwright"  # as environment_digest.py has it: it counts for no environment
OF_PIP = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json")


def main(prefix: str, *words: str) -> None:
    installed = sorted(
        glob.glob(os.path.join(prefix, "lib/python3*/site-packages/clusterwright-*.dist-info"))
    )
    if not installed:
        return
    base = os.path.dirname(installed[0])
    folders = [*installed, *(os.path.join(base, name) for name in PACKAGES)]
    if words == ("clear",):
        clear(prefix, folders, [os.path.join(prefix, "bin", name) for name in PROGRAMS])
    else:
        sys.stdout.write(digest(base, folders) + "\n")


def digest(base: str, folders: list[str]) -> str:
    lines = [f"{os.path.relpath(path, base)} {content_of(path)}\n" for path in files_in(folders)]
    return hashlib.sha256("".join(sorted(lines)).encode("utf-8", "surrogateescape")).hexdigest()


def files_in(folders: list[str]) -> Iterator[str]:
    for folder, names, files in (found for top in folders for found in os.walk(top)):
        linked = [name for name in names if os.path.islink(os.path.join(folder, name))]
        names[:] = [name for name in names if name != "__pycache__"]
        for name in [*files, *linked]:
            if not (folder.endswith(".dist-info") and name in OF_PIP):
                yield os.path.join(folder, name)


def content_of(path: str) -> str:
    if os.path.islink(path) or not os.path.isfile(path):
        return "no file"
    with open(path, "rb") as stream:
        return hashlib.sha256(stream.read()).hexdigest()


def clear(prefix: str, folders: list[str], programs: list[str]) -> None:
    """Takes away what pip wrote. What a person put there or changed goes where no Python looks: printed."""
    base = os.path.dirname(folders[0])
    listed = record_of(folders[0])
    now = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    kept = os.path.join(prefix, RECORDS, f"replaced-{now}-{os.getpid()}")
    found = [*files_in(folders), *filter(os.path.lexists, programs)]
    theirs = [path for path in found if listed.get(os.path.relpath(path, base)) != content_of(path)]
    for path in theirs:
        target = os.path.join(kept, os.path.relpath(path, prefix if path in programs else base))
        os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
        os.rename(path, target)
    for path in [*folders, *programs]:
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        elif os.path.lexists(path):
            os.unlink(path)
    if theirs:
        sys.stdout.write(kept + "\n")


def record_of(installed: str) -> dict[str, str]:
    """Path and sha256 of each file that pip wrote down."""
    try:
        with open(os.path.join(installed, "RECORD"), encoding="utf-8", newline="") as stream:
            rows = [row for row in csv.reader(stream) if len(row) == 3 and row[1].startswith("sha256=")]
    except (OSError, ValueError, csv.Error):
        return {}
    return {path: hex_of(digest.partition("=")[2]) for path, digest, _ in rows}


def hex_of(text: str) -> str:
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).hex()
    except ValueError:
        return ""


if __name__ == "__main__":
    main(*sys.argv[1:])
