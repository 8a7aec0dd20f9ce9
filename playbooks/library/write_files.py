"""Writes several small files on a node in one round trip: all, or none where a check of them fails."""

from __future__ import annotations

import os
from collections.abc import Mapping

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.node_files import (
    JOURNAL,
    Attributes,
    Entry,
    State,
    attributes,
    bare,
    digest,
    handed_back,
    lines_in,
    missing_folders,
    numbers,
    put,
    read_journal,
    state_in,
    with_block,
    with_lines,
    write_journal,
)
from ansible.module_utils.node_place import Place, Refused
from ansible.module_utils.own_way import closed

DOCUMENTATION = r"""
module: write_files
short_description: Write several small text files in one round trip
description:
  - Each file is written under a temporary name in its folder and renamed. Missing folders are made.
  - Until it has its owner and its mode, only root can read it.
  - A link, a hard link, a FIFO or a device in a folder that a user can change is refused, by name.
  - With O(validate), what was there before is put back when that command does not succeed.
  - What a file was before its first change is kept in O(journal), from which M(restore_files) puts it back.
options:
  files:
    description: The files.
    type: list
    elements: dict
    required: true
    suboptions:
      path: {description: Where; C(~user/...) is understood., type: str, required: true}
      content: {description: The whole text., type: str}
      block:
        description:
          - Lines that replace those between the same first and last line, or go to the end of the file.
          - With C(content), the part of it that is ours. A teardown leaves what others wrote beside it.
        type: str
      yields:
        description: Of C(block), words behind the second of a line are left out where another line has them.
        type: bool
        default: false
      seen:
        description:
          - With C(content), the sha256 of the file that it was made from, empty for none.
          - Where the file is another one by now, nothing is written.
        type: str
      lines: {description: "As C(block), lines that must be there, in any place.", type: list, elements: str}
      supersede:
        description: Take out lines that O(journal) says were written before and are not among C(lines) now.
        type: bool
        default: false
      without: {description: Lines that must not be there., type: list, elements: str}
      own_way:
        description:
          - C(way) of M(prove_key), with how to go on as C(fix), where the file is an authorized_keys.
          - Nothing is written where that would close the line by which the caller's own key opens the node.
        type: dict
      stays:
        description: A file that is there keeps its owner, its group and its mode.
        type: bool
        default: false
      mode: {description: Permissions., type: str, default: "0644"}
      owner: {description: "Owner; who runs this where it is left out, which is root on a node.", type: str}
      group: {description: "Group; left out, as O(files[].owner).", type: str}
      directory_mode: {description: Permissions of a missing folder., type: str, default: "0755"}
  validate:
    description: Words of a command that must succeed once the files are in place.
    type: list
    elements: str
    default: []
  journal:
    description: Where the node keeps what its files were before; empty for nowhere.
    type: path
    default: /var/lib/clusterwright/journal.json
author: Clusterwright
"""

RETURN = r"""
paths:
  description: The paths that were, or in check mode would be, written.
  returned: always
  type: list
"""

FILE_OPTIONS = {
    "path": {"type": "str", "required": True},
    "content": {"type": "str"},
    "block": {"type": "str"},
    "yields": {"type": "bool", "default": False},
    "seen": {"type": "str"},
    "lines": {"type": "list", "elements": "str", "default": []},
    "supersede": {"type": "bool", "default": False},
    "without": {"type": "list", "elements": "str", "default": []},
    "own_way": {"type": "dict"},
    "stays": {"type": "bool", "default": False},
    "mode": {"type": "str", "default": "0644"},
    "owner": {"type": "str"},
    "group": {"type": "str"},
    "directory_mode": {"type": "str", "default": "0755"},
}


class Wanted(Attributes):
    path: str
    content: str | None
    block: str | None
    yields: bool
    seen: str | None
    lines: list[str]
    supersede: bool
    without: list[str]
    own_way: Mapping[str, str] | None
    stays: bool
    directory_mode: str


def wanted_text(wanted: Wanted, before: str, entry: Entry | None) -> str:
    """The whole text that a file should have; `entry` is what the journal says of it."""
    if wanted["content"] is not None:
        return handed_back(wanted["content"], before)
    text = before
    absent = [*wanted["without"], *superseded(wanted, entry)]
    if differs_in_lines(wanted["lines"], absent, before):
        text = with_lines(before, wanted["lines"], absent)
    return with_block(text, wanted["block"], yields=wanted["yields"]) if wanted["block"] else text


def superseded(wanted: Wanted, entry: Entry | None) -> list[str]:
    """Lines that we wrote and want no more; one that was there before us is not ours."""
    if not wanted["supersede"] or entry is None:
        return []
    theirs = set(map(bare, lines_in(entry["before"]["text"] if entry["before"] else "")))
    return [line for line in entry["lines"] if line not in wanted["lines"] and line not in theirs]


def differs_in_lines(present: list[str], absent: list[str], before: str) -> bool:
    found = set(map(bare, lines_in(before)))
    return not found.issuperset(present) or not found.isdisjoint(absent)


def write(module: AnsibleModule, wanted: Wanted, path: str, before: State | None, after: State) -> bool:
    """Makes one file as wanted; returns whether anything differed."""
    if before == after:
        return False
    if module.check_mode:
        return True
    if module.params["journal"] and (before is None or before["text"] != after["text"]):
        note(module.params["journal"], wanted, path, before, after["text"])
    with Place(path) as place:
        put(place, after, int(wanted["directory_mode"], 8))
    return True


def note(journal: str, wanted: Wanted, path: str, before: State | None, text: str) -> None:
    """Keeps what the file was before the first change, before it is changed."""
    entries = read_journal(journal)
    entry = entries.get(path)
    marks = wanted["block"].splitlines() if wanted["block"] else []
    # Those of before stay until the next time: a run that is cut off here leaves them in the file.
    there = set(map(bare, lines_in(before["text"] if before else "")))
    old = [line for line in superseded(wanted, entry) if line in there]
    entries[path] = {
        "before": entry["before"] if entry else before,
        "folders": entry["folders"] if entry else missing_folders(path),
        "marks": [marks[0], marks[-1]] if marks else [],
        "lines": [*wanted["lines"], *old],
        "written": digest(text),
    }
    write_journal(journal, entries)


def put_back(before: dict[str, State | None]) -> None:
    for path, state in before.items():
        with Place(path) as place:
            put(place, state) if state else place.unlink()


def states(wanted: Wanted, path: str, entry: Entry | None) -> tuple[State | None, State]:
    """What the file is, and what it should be: text, mode and owners; the first None where there is none."""
    uid, _, _ = numbers(wanted)
    with Place(path) as place:
        place.check_owners(uid)
        before = state_in(place, reader=uid)
    text = before["text"] if before else ""
    if wanted["seen"] is not None and wanted["seen"] != (digest(text) if before else ""):
        raise ValueError(f"nothing was written. {path} was changed since it was looked at: run it again")
    after = wanted_text(wanted, text, entry)
    if wanted["own_way"] is not None and (why := closed(text, after, wanted["own_way"])):
        raise ValueError(f"nothing was written. {wanted['path']}: {why}")
    return before, {"text": after, **attributes(before if wanted["stays"] and before else wanted)}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "files": {"type": "list", "elements": "dict", "required": True, "options": FILE_OPTIONS},
            "validate": {"type": "list", "elements": "str", "default": []},
            "journal": {"type": "path", "default": JOURNAL},
        },
        supports_check_mode=True,
    )
    try:
        before, diff = write_all(module)
    except (Refused, OSError, ValueError) as e:
        module.fail_json(msg=f"write {', '.join(wanted['path'] for wanted in module.params['files'])}: {e}")
    if module.params["validate"] and before and not module.check_mode:
        rc, out, err = module.run_command(module.params["validate"])
        if rc != 0:
            put_back(before)
            refused = " ".join(module.params["validate"])
            module.fail_json(
                msg=f"'{refused}' refuses the new files, so the old ones are back: {(err or out).strip()}"
            )
    module.exit_json(changed=bool(before), paths=sorted(before), diff=diff)


def write_all(module: AnsibleModule) -> tuple[dict[str, State | None], list[dict[str, str]]]:
    """What the files that differed were before, and the difference for people. All are looked at first."""
    planned = []
    journal = read_journal(module.params["journal"]) if module.params["journal"] else {}
    for wanted in module.params["files"]:
        path = os.path.expanduser(wanted["path"])
        planned.append((wanted, path, *states(wanted, path, journal.get(path))))
    before: dict[str, State | None] = {}
    diff = []
    for wanted, path, old, new in planned:
        if write(module, wanted, path, old, new):
            before[path] = old
            names = {"before_header": path, "after_header": path}
            diff.append({"before": shown(old["text"] if old else ""), "after": shown(new["text"]), **names})
    return before, diff


def shown(text: str) -> str:
    """The text as a person may see it."""
    return text.encode("utf-8", "replace").decode()


if __name__ == "__main__":
    main()
