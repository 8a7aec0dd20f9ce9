"""What the modules that write and restore a node's files share: edits of a text, and the journal.

The journal holds what each file was before the first change: teardown.yml puts that back.
"""

from __future__ import annotations

import grp
import hashlib
import json
import os
import pwd
import tempfile

JOURNAL = "/var/lib/clusterwright/journal.json"


def with_block(text, block):
    """The text with a block whose first and last lines are its marks: in its place, else at the end."""
    marks = block.splitlines()
    kept = without_block(text, marks[0], marks[-1])
    return kept + ("\n" if kept and not kept.endswith("\n\n") else "") + block


def without_block(text, begin, end):
    """The text without what stands from the line `begin` to the line `end`."""
    kept, inside = [], False
    for line in text.splitlines(keepends=True):
        inside = inside or line.rstrip("\n") == begin
        if not inside:
            kept.append(line)
        inside = inside and line.rstrip("\n") != end
    return "".join(kept)


def with_lines(text, present, absent):
    """The text with these lines, at its end where they are missing, and without those."""
    kept = [line for line in text.splitlines() if line not in absent]
    return "".join(f"{line}\n" for line in [*kept, *(line for line in present if line not in kept)])


def text_of(path):
    """The text of a file; bytes that are no UTF-8 come back as they were. None where there is none."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as stream:
            return stream.read()
    except FileNotFoundError:
        return None


def digest(text):
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def put(path, text, move=os.replace):
    """Writes a file by renaming a temporary one in its folder."""
    descriptor, temporary = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".clusterwright-")
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape", newline="") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    move(temporary, path)


def read_journal(path):
    text = text_of(path)
    return json.loads(text) if text else {}


def write_journal(path, entries):
    """Writes the journal for root alone: a file that it holds may have been secret."""
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    put(path, json.dumps(entries, indent=1) + "\n")


def state_of(path):
    """What a file is: text, mode and owners; None where there is none."""
    text = text_of(path)
    if text is None:
        return None
    status = os.stat(path)
    return {
        "text": text,
        "mode": f"{status.st_mode & 0o7777:04o}",
        "owner": _name(pwd.getpwuid, status.st_uid),
        "group": _name(grp.getgrgid, status.st_gid),
    }


def missing_folders(path):
    """The folders above a file that are not there, the outermost first."""
    folder, found = os.path.dirname(path), []
    while not os.path.isdir(folder):
        found.insert(0, folder)
        folder = os.path.dirname(folder)
    return found


def _name(lookup, number):
    try:
        return lookup(number)[0]
    except KeyError:
        return str(number)
