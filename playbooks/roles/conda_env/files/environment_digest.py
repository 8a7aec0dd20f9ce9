"""One digest for a conda environment: what is installed, not when or by whom.

    environment_digest.py --prefix P                              prints a report as JSON
    environment_digest.py --prefix P --record --built-from TEXT   and keeps it, to compare with later
    environment_digest.py --prefix P --verify                     status 1 if anything differs since
    environment_digest.py --prefix P --bytecode                   and compares bytecode with its sources
    environment_digest.py --prefix P --own                        looks for settings and our changed files
    environment_digest.py --prefix P --compile CODE               runs it there, keeps which bytecode it made

The digest is a sha256 over sorted lines: name, version, build and sha256 of each conda package; path and
sha256 of each file; path and target of each link. Left out: bytecode in `__pycache__`, conda's own records
(they carry dates), this script's records, and the distribution `clusterwright`, which has a life of its own:
by the names of its folders and programs, whatever its RECORD lists. No two environments have the same lines.

A file whose size, inode and ctime (which cannot be set back) are as recorded is not read again, except with
--full; nor is bytecode that was right. Standard library only: it runs with whichever Python a node has.
"""

from __future__ import annotations

import argparse
import base64
import csv
import hashlib
import json
import os
import re
import stat
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from environment_bytecode import BYTECODE, clear_bytecode, compiled, judged_bytecode, marks_of
from environment_hardening import close, openings, settings

RECORDS = ".clusterwright"
OWN_DISTRIBUTION = "clusterwright"
OWN_PACKAGES = ("provision", "runtime")  # wheels of before held the first, too
OWN_PROGRAMS = ("bin/provision", "bin/zerorun")
UNCLEAR = re.compile(r"\n| x$| link( |$)")  # in a path, since what the file holds follows it
THREADS = 8
CHUNK_BYTES = 1 << 20
NAMED_FILES = 20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prefix", required=True)
    parser.add_argument("--record", action="store_true", help="keep the report below the prefix")
    parser.add_argument("--built-from", default="", help="with --record: what the environment was built from")
    parser.add_argument("--verify", action="store_true", help="end with status 1 when something differs")
    parser.add_argument("--full", action="store_true", help="read every file again")
    parser.add_argument("--only-recorded", action="store_true", help="read no file where there is no record")
    parser.add_argument("--own", action="store_true", help="look for settings and our own changed files, too")
    parser.add_argument("--bytecode", action="store_true", help="judge bytecode as well, as --full does")
    parser.add_argument("--keep", action="store_true", help="remember which bytecode is right")
    parser.add_argument("--files-only", action="store_true", help="run nothing of it, so judge no bytecode")
    parser.add_argument("--clear-bytecode", action="store_true", help="take all bytecode away")
    parser.add_argument("--close", action="store_true", help="take rights away that others have to its files")
    parser.add_argument("--compile", default="", help="code that imports what is to be compiled")
    options = parser.parse_args()
    os.umask(0o022)  # the users of jobs read the record and the bytecode
    kept_at = os.path.join(options.prefix, RECORDS, "bytecode.json")
    pythons = [os.path.basename(os.path.dirname(folder)) for folder in site_packages(options.prefix)]
    if options.compile:
        made = compiled(options.prefix, options.compile, walk, pythons)
        write_json(kept_at, {**read_record(kept_at), **made})
        return 0
    if options.clear_bytecode:
        clear_bytecode(options.prefix)
    if options.close:
        close(options.prefix)
    record = read_record(record_path(options.prefix))
    known = {} if options.full else record.get("entries", {})
    places = dict(walk(options.prefix)) if record or not options.only_recorded else {}
    entries = entries_of(options.prefix, places, known)
    conda = conda_records(options.prefix)
    digest = digest_of(conda, entries) if entries else ""
    found = [*own_differences(options.prefix), *settings(options.prefix)] if options.own else []
    if record and (options.verify or options.bytecode or options.full):
        found += openings(places)
    # The environment's Python judges, so every file of it must be as recorded.
    judged = (options.bytecode or options.full) and not options.files_only
    if judged and digest == record.get("digest", "") != "":
        known = {} if options.full else read_record(kept_at)
        wrong, others = judged_bytecode(options.prefix, places, pythons, known)
        found += [f"changed {path}" for path in wrong]
        if options.keep and others != known:
            write_json(kept_at, others)
    if options.close and digest == record.get("digest", "") != "":  # the marks are others now
        write_json(record_path(options.prefix), {**record, "entries": entries})
    if options.record:
        record = {"digest": digest, "built_from": options.built_from, "entries": entries, "conda": conda}
        write_json(record_path(options.prefix), record)
    report = report_of(options.prefix, digest, conda, entries, record, found)
    sys.stdout.write(json.dumps(report) + "\n")
    is_recorded = report["exists"] and report["digest"] == report["recorded"]
    return 1 if options.verify and (not is_recorded or report["bytecode"] or report["open"]) else 0


def report_of(
    prefix: str,
    digest: str,
    conda: list[list[str]],
    entries: dict[str, list[str | int]],
    record: Mapping[str, Any],
    found: list[str],
) -> dict[str, Any]:
    """What is there, beside what was recorded; `found` is what differs beside that."""
    differences = [*found, *(differences_between(record.get("entries", {}), entries) if record else [])]
    return {
        "prefix": prefix,
        "exists": os.path.isdir(prefix),
        **place_of(prefix),
        "unfinished": bool(record.get("unfinished")),
        "digest": digest,
        "recorded": record.get("digest", ""),
        "built_from": record.get("built_from", ""),
        "differences": differences[:NAMED_FILES],
        "different": len(differences),
        "bytecode": sum(line.startswith("changed ") and "__pycache__" in line for line in found),
        "open": sum(line.startswith("open ") for line in found),
        "conda": len(conda),
        "files": len(entries),
        "packages": packages_of(conda, prefix),
        **changed_packages(prefix, conda, record),
        "free_bytes": free_bytes(prefix),
    }


def place_of(prefix: str) -> dict[str, object]:
    """What lies at the prefix, whoever made it, and what a build of ours kept beside it."""
    folder, name = os.path.split(prefix.rstrip("/"))
    link = os.readlink(prefix) if os.path.islink(prefix) else ""
    empty = not link and os.path.isdir(prefix) and not os.listdir(prefix)
    return {
        "occupied": os.path.lexists(prefix) and not empty,
        "link": link,
        "holds": listed(prefix)[:NAMED_FILES],
        "kept": [os.path.join(folder, one) for one in listed(folder) if one.startswith(name + ".before-")],
    }


def changed_packages(
    prefix: str, conda: list[list[str]], record: Mapping[str, Any]
) -> dict[str, dict[str, str]]:
    """Versions by name of what was installed since, and of what is gone; another version is both.

    A record of an earlier release tells wheels alone.
    """
    entries = record.get("entries", {})
    if not entries:
        return {"added": {}, "gone": {}}
    wheels = [re.fullmatch(r"lib/python3\.\d+/site-packages/([^/]+)/METADATA", path) for path in entries]
    named = [distribution_of(match[1]) for match in wheels if match]
    before = dict([*(tuple(one[:2]) for one in record.get("conda", conda)), *filter(None, named)])
    after = packages_of(conda, prefix)
    return {
        "added": {name: version for name, version in after.items() if before.get(name) != version},
        "gone": {name: version for name, version in sorted(before.items()) if after.get(name) != version},
    }


def digest_of(conda: list[list[str]], entries: Mapping[str, list[str | int]]) -> str:
    lines = [line_of(" ".join(record).isprintable(), "conda", *record) for record in conda]
    for path in sorted(entries):
        content = str(entries[path][0])
        lines.append(line_of("\n" not in content and not UNCLEAR.search(path), "file", path, content))
    return hashlib.sha256(b"".join(lines)).hexdigest()


def line_of(is_plain: bool, *fields: str) -> bytes:
    """Its fields; those that could be read as others, which honest packages have none of, stand as JSON."""
    text = " ".join(fields) if is_plain else json.dumps(fields)
    return f"{text}\n".encode("utf-8", "surrogateescape")


def differences_between(
    before: Mapping[str, list[str | int]], after: Mapping[str, list[str | int]]
) -> list[str]:
    """Each path that was changed, lost or added, with that word, sorted by path."""
    found = []
    for path in sorted({**before, **after}):
        if path not in after:
            found.append(f"missing {path}")
        elif path not in before:
            found.append(f"extra {path}")
        elif before[path][0] != after[path][0]:
            found.append(f"changed {path}")
    return found


def entries_of(
    prefix: str, places: Mapping[str, os.stat_result], known: Mapping[str, list[str | int]]
) -> dict[str, list[str | int]]:
    """For each file and link that counts: what it holds, and the marks by which an untouched one is known."""
    left_out, programs = own_places(prefix)
    left_out = (f"{RECORDS}/", "conda-meta/", *left_out)
    marks = {
        path: marks_of(status)
        for path, status in places.items()
        if not (stat.S_ISDIR(status.st_mode) or path.startswith(left_out) or path in programs)
        and BYTECODE not in f"/{path}"
    }
    entries = {path: known[path] for path in marks if path in known and known[path][1:] == marks[path]}
    to_read = [path for path in marks if path not in entries]
    with ThreadPoolExecutor(THREADS) as pool:
        contents = pool.map(lambda path: (path, content_of(os.path.join(prefix, path))), to_read)
        entries.update({path: [content, *marks[path]] for path, content in contents})
    return entries


def walk(prefix: str) -> Iterator[tuple[str, os.stat_result]]:
    """Path, relative to the prefix, and status of each file, link and folder; links are not followed."""
    if os.path.isdir(prefix):
        yield ".", os.stat(prefix)
    folders = [""]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(os.path.join(prefix, folder)) as found:
                children = list(found)
        except (FileNotFoundError, NotADirectoryError):  # an environment in use
            continue
        start = f"{folder}/" if folder else ""
        for child in children:
            try:
                status = child.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            if stat.S_ISDIR(status.st_mode):
                folders.append(start + child.name)
            yield start + child.name, status


def content_of(place: str) -> str:
    if os.path.islink(place):
        return f"link {os.readlink(place)}"
    if not os.path.isfile(place):
        return "no file"  # a pipe would be read for ever
    try:
        return ("x " if os.access(place, os.X_OK) else "") + sha256_of(place)
    except PermissionError:  # whoever asks is not root
        return "unreadable"


def sha256_of(path: str) -> str:
    total = hashlib.sha256()
    with open(path, "rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            total.update(chunk)
    return total.hexdigest()


def site_packages(prefix: str) -> list[str]:
    library = os.path.join(prefix, "lib")
    names = [name for name in listed(library) if re.fullmatch(r"python3\.\d+", name)]
    return [os.path.join(library, name, "site-packages") for name in names]


def listed(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []


def distributions(prefix: str) -> dict[str, tuple[str, str]]:
    """Name and version of each installed distribution, with the folder of its records."""
    found = {}
    for folder in site_packages(prefix):
        for name in listed(folder):
            named = distribution_of(name)
            if named:
                found[named[0]] = (named[1], os.path.join(folder, name))
    return found


def distribution_of(folder: str) -> tuple[str, str] | None:
    """Name and version of a `.dist-info`."""
    match = re.fullmatch(r"(.+?)-([^-]+)\.dist-info", folder)
    return (match[1].replace("_", "-").lower(), match[2]) if match else None


def own_places(prefix: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The folders and the programs of the distribution `clusterwright`, if it is there.

    Its RECORD has no say in that: whoever plants a file can write a line there, too.
    """
    _, folder = distributions(prefix).get(OWN_DISTRIBUTION, ("", ""))
    if not folder:
        return (), ()
    own = os.path.relpath(folder, prefix)
    return (f"{own}/", *(f"{os.path.dirname(own)}/{name}/" for name in OWN_PACKAGES)), OWN_PROGRAMS


def own_differences(prefix: str) -> list[str]:
    """Files of the distribution `clusterwright` that are not what pip installed (PEP 376: RECORD)."""
    _, folder = distributions(prefix).get(OWN_DISTRIBUTION, ("", ""))
    if not folder:
        return []
    if "RECORD" not in listed(folder):
        return [f"missing {os.path.relpath(os.path.join(folder, 'RECORD'), prefix)}"]
    with open(os.path.join(folder, "RECORD"), encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.reader(stream) if len(row) > 1 and row[1].startswith("sha256=")]
    base = os.path.dirname(folder)
    changed = [row[0] for row in rows if base64_of(os.path.join(base, row[0])) != row[1][len("sha256=") :]]
    return [f"changed {os.path.relpath(os.path.join(base, name), prefix)}" for name in changed]


def base64_of(path: str) -> str:
    try:
        digest = bytes.fromhex(sha256_of(path))
    except FileNotFoundError:
        return ""
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def conda_records(prefix: str) -> list[list[str]]:
    """Name, version, build and sha256 of each conda package, sorted."""
    folder = os.path.join(prefix, "conda-meta")
    found = []
    for name in listed(folder):
        if name.endswith(".json"):
            record = json_of(os.path.join(folder, name))
            found.append([str(record.get(key, "")) for key in ("name", "version", "build", "sha256")])
    return sorted(found)


def json_of(path: str) -> dict[str, Any]:
    """What a file says; nothing where it is damaged, which its package then shows."""
    try:
        with open(path, encoding="utf-8") as stream:
            return dict(json.load(stream))
    except (OSError, ValueError, TypeError):
        return {"name": os.path.basename(path)}


def packages_of(conda: list[list[str]], prefix: str) -> dict[str, str]:
    """Versions by name, wheels and conda packages together."""
    wheels = {name: version for name, (version, _) in distributions(prefix).items()}
    versions = {**{record[0]: record[1] for record in conda}, **wheels}
    return {name: versions[name] for name in sorted(versions) if name != OWN_DISTRIBUTION}


def free_bytes(path: str) -> int:
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def record_path(prefix: str) -> str:
    return os.path.join(prefix, RECORDS, "record.json")


def read_record(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as stream:
            record: dict[str, Any] = json.load(stream)
            return record
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return {}


def write_json(path: str, record: Mapping[str, Any]) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path + ".partial", "w", encoding="utf-8") as stream:
        json.dump(record, stream)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(path + ".partial", path)


if __name__ == "__main__":
    sys.exit(main())
