"""What of an environment that a build of ours left unfinished is not that build's, or cannot be told."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import os
import re
from collections.abc import Iterator

CHUNK_BYTES = 1 << 20


def not_ours(prefix: str, claim: str, locks: list[str], at_once: bool) -> list[str]:
    """Paths below the prefix that are no file of a package of the build, as that package brought it.

    locks: the files that the build installed from: conda's explicit file, the list of wheels.
    at_once: whether the build has just failed. It may have left a wheel half unpacked then, which no record
    names: such files pass where the wheels go, unless a package of somebody else is there, too.
    """
    names = names_in(locks)
    own = [claim, os.path.join(os.path.dirname(claim), "bytecode.json"), "conda-meta/history"]
    claimed = {path: {""} for path in own}
    # Both list what a conda package brought as a wheel, and conda may have changed it since.
    for files in (conda_files(prefix, names), wheel_files(prefix, names)):
        for path, digest in files.items():
            claimed.setdefault(path, set()).add(digest)
    found = sorted(
        path for path in files_below(prefix) if path not in claimed or differs(prefix, path, claimed[path])
    )
    if at_once and not any(is_record_of_others(path, names) for path in found):
        found = [path for path in found if not re.match(r"lib/python3\.\d+/site-packages/|bin/", path)]
    return found


def names_in(locks: list[str]) -> set[str]:
    """`name-version-build` of conda packages and `name-version` of wheels, as their records are called."""
    found = set()
    for path in locks:
        try:
            with open(path, encoding="utf-8") as stream:
                text = stream.read()
        except OSError:
            continue
        found.update(re.findall(r"^\S*/([^/\s]+)\.(?:conda|tar\.bz2)(?:#\S*)?$", text, re.MULTILINE))
        for name, version in re.findall(r"^([A-Za-z0-9][\w.-]*)==([^\s;\\]+)", text, re.MULTILINE):
            found.add(f"{normal(name)}-{version}")
    return found


def normal(name: str) -> str:
    """PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()


def files_below(prefix: str) -> Iterator[str]:
    """Files and links, links not followed; bytecode is nobody's work."""
    for folder, folders, names in os.walk(prefix):
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        folders[:] = [name for name in folders if name != "__pycache__"]
        for name in [*names, *links]:
            yield os.path.relpath(os.path.join(folder, name), prefix)


def is_record_of_others(path: str, names: set[str]) -> bool:
    folder, file = os.path.split(path)
    if folder == "conda-meta":
        return file.endswith(".json") and file[: -len(".json")] not in names
    return folder.endswith(".dist-info") and wheel_of(os.path.basename(folder)) not in names


def wheel_of(folder: str) -> str:
    """`name-version` of a `.dist-info`."""
    name, _, version = folder[: -len(".dist-info")].rpartition("-")
    return f"{normal(name)}-{version}"


def conda_files(prefix: str, names: set[str]) -> dict[str, str]:
    """Paths with their sha256 in hex, "" where conda keeps none."""
    found = {}
    for name in names:
        record = f"conda-meta/{name}.json"
        try:
            with open(os.path.join(prefix, record), encoding="utf-8") as stream:
                paths = json.load(stream)["paths_data"]["paths"]
            files = {one["_path"]: one.get("sha256_in_prefix") or one.get("sha256") or "" for one in paths}
        except (OSError, ValueError, KeyError, TypeError):
            continue
        found.update({**files, record: ""})
    return found


def wheel_files(prefix: str, names: set[str]) -> dict[str, str]:
    """As `conda_files`, from what pip recorded (PEP 376)."""
    found, library = {}, os.path.join(prefix, "lib")
    for python in os.listdir(library) if os.path.isdir(library) else ():
        packages = os.path.join(library, python, "site-packages")
        for folder in os.listdir(packages) if os.path.isdir(packages) else ():
            if folder.endswith(".dist-info") and wheel_of(folder) in names:
                for path, digest in recorded(os.path.join(packages, folder, "RECORD")):
                    found[os.path.relpath(os.path.join(packages, path), prefix)] = digest
    return found


def recorded(record: str) -> list[tuple[str, str]]:
    try:
        with open(record, encoding="utf-8", newline="") as stream:
            rows = [row for row in csv.reader(stream) if len(row) > 1]
            return [(row[0], hex_of(row[1])) for row in rows]
    except (OSError, ValueError, csv.Error):
        return []


def hex_of(digest: str) -> str:
    """RECORD's `sha256=...` in base64 without its end."""
    kind, _, text = digest.partition("=")
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).hex() if kind == "sha256" else ""


def differs(prefix: str, path: str, digests: set[str]) -> bool:
    place = os.path.join(prefix, path)
    if "" in digests or os.path.islink(place):
        return False
    if not os.path.isfile(place):
        return True  # a pipe would be read for ever
    total = hashlib.sha256()
    with open(place, "rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            total.update(chunk)
    return total.hexdigest() not in digests
