"""What the modules that write and restore a node's files share: edits of a text, and the journal.

The journal holds what each file was before the first change: teardown.yml puts that back.
"""

from __future__ import annotations

import grp
import hashlib
import json
import os
import pwd
import re
from collections.abc import Callable
from typing import TypedDict

from ansible.module_utils.node_place import Place

JOURNAL = "/var/lib/clusterwright/journal.json"


class Attributes(TypedDict):
    """Without an owner or a group, who runs this."""

    mode: str
    owner: str | None
    group: str | None


class State(Attributes):
    text: str


class Entry(TypedDict):
    """What the journal says of a file: what was there before, the folders made for it, what of it is ours."""

    before: State | None
    folders: list[str]
    marks: list[str]
    lines: list[str]
    written: str


def with_block(text: str, block: str, *, yields: bool = False) -> str:
    """The text with a block whose first and last lines are its marks: in its place, else at the end.

    `yields`: words behind the second of a line are left out where another line has them.
    """
    marks = block.splitlines()
    kept = without_block(text, marks[0], marks[-1])
    if yields:
        held = {word for line in lines_in(kept) for word in line.partition("#")[0].lower().split()}
        block = "".join(f"{_yielding(line, held)}\n" for line in marks)
    return kept + ("\n" if kept and not kept.endswith("\n\n") else "") + block


def _yielding(line: str, held: set[str]) -> str:
    words = line.split(" ")
    return " ".join([*words[:2], *(word for word in words[2:] if line.startswith("#") or word not in held)])


def without_block(text: str, begin: str, end: str) -> str:
    """The text without what stands from the line `begin` to the line `end`.

    Raises:
        ValueError: it has no end, so that nobody knows what behind it is ours; a whole file needs none.
    """
    kept, inside = [], False
    for line in lines_in(text):
        inside = inside or bare(line) == begin
        if not inside:
            kept.append(line)
        inside = inside and bare(line) != end
    if inside and kept:
        raise ValueError(f"there is no '{end}' behind '{begin}': put that line behind the last one of ours")
    return "".join(kept)


def lines_in(text: str) -> list[str]:
    """The lines as they are, their ends included; str.splitlines takes other characters for ends, too."""
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def bare(line: str) -> str:
    """A line without its end."""
    return line.rstrip("\r\n")


def with_lines(text: str, present: list[str], absent: list[str]) -> str:
    """The text with these lines, at its end where missing, and without those; others stay byte for byte."""
    kept = [line for line in lines_in(text) if bare(line) not in absent]
    missing = [line for line in present if line not in map(bare, kept)]
    whole = "".join(kept)
    end = "\n" if missing and whole and not whole.endswith("\n") else ""
    return whole + end + "".join(f"{line}\n" for line in missing)


def handed_back(text: str, before: str) -> str:
    """A text that the controller read here and changed: lines that it left alone are what they were.

    What it reads is UTF-8 (module observe), so that other bytes of somebody else come back as U+FFFD.

    Raises:
        ValueError: two lines come back as the same one, and not as often: nobody knows which of them is left.
    """
    known: dict[str, list[str]] = {}
    for line in lines_in(before):
        if (read := bytes_of(line).decode(errors="replace")) != line:
            known.setdefault(read, []).append(line)
    given = lines_in(text)
    for read, lines in known.items():
        if len(set(lines)) > 1 and given.count(read) != len(lines):
            raise ValueError(f"lines that are no UTF-8 look alike ({bare(read)}): make them UTF-8")
    return "".join(known[line].pop(0) if known.get(line) else line for line in given)


def text_in(content: bytes) -> str:
    """The text of a file's bytes; bytes that are no UTF-8 come back as they were by `bytes_of`."""
    return content.decode("utf-8", "surrogateescape")


def bytes_of(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def digest(text: str) -> str:
    return hashlib.sha256(bytes_of(text)).hexdigest()


def state_in(place: Place, reader: int | None = None) -> State | None:
    """What a file is: text, mode and owners; None where there is none. `reader` as of Place.read."""
    found = place.read(reader)
    if found is None:
        return None
    content, status = found
    return {"text": text_in(content), **described(status)}


def described(status: os.stat_result) -> Attributes:
    """Mode and owners as texts."""
    return {
        "mode": f"{status.st_mode & 0o7777:04o}",
        "owner": _name(pwd.getpwuid, status.st_uid),
        "group": _name(grp.getgrgid, status.st_gid),
    }


def put(place: Place, state: State, directory_mode: int = 0o755) -> None:
    """Writes a file as `state` describes it, in a folder that is made where it is missing."""
    uid, gid, mode = numbers(state)
    place.check_owners(uid)
    place.make_folders(uid, gid, directory_mode)
    place.write(bytes_of(state["text"]), uid, gid, mode)


def attributes(wanted: Attributes) -> Attributes:
    """Mode and owners as `described` writes them."""
    uid, gid, mode = numbers(wanted)
    return {"mode": f"{mode:04o}", "owner": _name(pwd.getpwuid, uid), "group": _name(grp.getgrgid, gid)}


def numbers(state: Attributes) -> tuple[int, int, int]:
    """Owner, group and mode as numbers; who runs this where no owner or group is named.

    Raises:
        ValueError: there is no such user or group, or the mode is none.
    """
    return (
        _number(lambda name: pwd.getpwnam(name).pw_uid, state["owner"], os.geteuid()),
        _number(lambda name: grp.getgrnam(name).gr_gid, state["group"], os.getegid()),
        int(state["mode"], 8),
    )


def read_journal(path: str) -> dict[str, Entry]:
    with Place(path) as place:
        found = place.read()
    entries: dict[str, Entry] = json.loads(found[0]) if found and found[0] else {}
    return entries


def write_journal(path: str, entries: dict[str, Entry]) -> None:
    """Writes the journal for root alone: a file that it holds may have been secret."""
    uid, gid = os.geteuid(), os.getegid()
    with Place(path) as place:
        place.make_folders(uid, gid, 0o700)
        place.write(bytes_of(json.dumps(entries, indent=1) + "\n"), uid, gid, 0o600)


def missing_folders(path: str) -> list[str]:
    """The folders above a file that are not there, the outermost first."""
    found: list[str] = []
    with Place(path) as place:
        folder = os.path.dirname(place.path)
        for _ in place.missing:
            found.insert(0, folder)
            folder = os.path.dirname(folder)
    return found


def _name(lookup: Callable[[int], pwd.struct_passwd | grp.struct_group], number: int) -> str:
    try:
        return lookup(number)[0]
    except KeyError:
        return str(number)


def _number(lookup: Callable[[str], int], name: str | None, own: int) -> int:
    try:
        return own if name is None else lookup(name)
    except KeyError:
        if name and name.isdigit():
            return int(name)
        raise ValueError(f"there is no user or group {name} on this node") from None
