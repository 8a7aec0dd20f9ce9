"""Puts files back to what they were before write_files changed them first."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.node_files import (
    JOURNAL,
    Entry,
    bare,
    digest,
    lines_in,
    numbers,
    put,
    read_journal,
    state_in,
    with_lines,
    without_block,
    write_journal,
)
from ansible.module_utils.node_place import Place, Refused
from ansible.module_utils.own_way import closed

DOCUMENTATION = r"""
module: restore_files
short_description: Put files back to what they were before write_files changed them first
description:
  - A file of which only a part is ours keeps what somebody else changed since; our part is taken out.
  - Folders that write_files made are removed where they are empty; the journal ends.
  - As M(write_files), it goes through no link that a user can make; where it meets one, nothing is put back.
options:
  keep:
    description: Folders whose files stay as they are now.
    type: list
    elements: path
    default: []
  only:
    description:
      - Put back these alone; the journal goes on without them. Empty for all.
      - A file that is whole ours and was changed since stays.
    type: list
    elements: path
    default: []
  own_way:
    description:
      - By path of an authorized_keys, as O(files[].own_way) of M(write_files).
      - Nothing is put back where that would close the line by which the caller's own key opens the node.
    type: dict
    default: {}
  journal:
    description: Where write_files keeps what files were before.
    type: path
    default: /var/lib/clusterwright/journal.json
author: Clusterwright
"""

RETURN = r"""
paths:
  description: The paths that were, or in check mode would be, put back.
  returned: always
  type: list
edited:
  description: Those of which only our part was taken out, since somebody else changed them.
  returned: always
  type: list
"""


def is_edited(entry: Entry, now: str | None) -> bool:
    """Whether somebody else changed a file of which only a part is ours."""
    return now is not None and bool(entry["marks"] or entry["lines"]) and digest(now) != entry["written"]


def target(entry: Entry, now: str | None) -> str | None:
    """The text to put back; None for no file."""
    before = entry["before"]
    if now is None or not is_edited(entry, now):
        return before["text"] if before else None
    kept = without_block(now, *entry["marks"]) if entry["marks"] else now
    theirs = list(map(bare, lines_in(before["text"]))) if before else []
    kept = with_lines(kept, [], [line for line in entry["lines"] if line not in theirs])
    return kept if before or kept.strip() else None


def text_now(path: str, entry: Entry) -> str | None:
    """The file's text as it is now; None where there is none."""
    with Place(path) as place:
        if place.missing:
            return None
        found = state_in(place, reader=numbers(entry["before"])[0] if entry["before"] else None)
    return found["text"] if found else None


def wanted_back(path: str, entry: Entry, now: str | None) -> str | None:
    try:
        return target(entry, now)
    except ValueError as e:
        raise ValueError(f"nothing was put back. {path}: {e}") from e


def restore(path: str, entry: Entry, text: str | None) -> None:
    with Place(path) as place:
        if place.missing:
            return
        if text is None:
            place.unlink()
        elif as_now := entry["before"] or state_in(place):
            put(place, {**as_now, "text": text})


def remove_folders(entries: dict[str, Entry]) -> None:
    folders = {folder for entry in entries.values() for folder in entry["folders"]}
    for folder in sorted(folders, key=len, reverse=True):
        with suppress(OSError, Refused), Place(folder) as place:  # something else lies in it, or it has gone
            place.rmdir()


def check_own_way(
    own_way: dict[str, Mapping[str, str]], now: dict[str, str | None], texts: dict[str, str | None]
) -> None:
    for path, way in own_way.items():
        place = os.path.expanduser(path)
        if place in now and (why := closed(now[place] or "", texts[place] or "", way)):
            raise ValueError(f"nothing was put back. {path}: {why}")


def put_all_back(
    journal: str,
    keep: list[str],
    only: list[str],
    own_way: dict[str, Mapping[str, str]],
    *,
    check_mode: bool,
) -> tuple[list[str], list[str]]:
    """The paths that were put back, and those that somebody else had changed. All are looked at first."""
    kept = tuple(f"{folder}/" for folder in keep)
    entries = read_journal(journal)
    ours = {path: entry for path, entry in entries.items() if not path.startswith(kept)}
    if only:
        ours = {path: entry for path, entry in ours.items() if path in only}
    now = {path: text_now(path, entry) for path, entry in ours.items()}
    texts = {path: wanted_back(path, entry, now[path]) for path, entry in ours.items()}
    check_own_way(own_way, now, texts)
    if not check_mode:
        for path, entry in ours.items():
            if not only or is_edited(entry, now[path]) or is_as_written(entry, now[path]):
                restore(path, entry, texts[path])
        remove_folders(ours)
        if only:
            write_journal(journal, {path: entry for path, entry in entries.items() if path not in only})
        else:
            forget(journal)
    return sorted(ours), [path for path, entry in ours.items() if is_edited(entry, now[path])]


def is_as_written(entry: Entry, now: str | None) -> bool:
    return now is not None and digest(now) == entry["written"]


def forget(journal: str) -> None:
    with Place(journal) as place:
        if not place.missing:
            place.unlink()


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "keep": {"type": "list", "elements": "path", "default": []},
            "only": {"type": "list", "elements": "path", "default": []},
            "own_way": {"type": "dict", "default": {}},
            "journal": {"type": "path", "default": JOURNAL},
        },
        supports_check_mode=True,
    )
    try:
        wanted = (module.params[name] for name in ("journal", "keep", "only", "own_way"))
        paths, edited = put_all_back(*wanted, check_mode=module.check_mode)
    except (Refused, OSError, ValueError) as e:
        module.fail_json(msg=f"put files back to what they were: {e}")
    module.exit_json(changed=bool(paths), paths=paths, edited=edited)


if __name__ == "__main__":
    main()
