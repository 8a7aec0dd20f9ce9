"""Puts files back to what they were before write_files changed them first."""

from __future__ import annotations

import os
from contextlib import suppress

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.node_files import (
    JOURNAL,
    digest,
    put,
    read_journal,
    text_of,
    with_lines,
    without_block,
)

DOCUMENTATION = r"""
module: restore_files
short_description: Put files back to what they were before write_files changed them first
description:
  - A file of which only a part is ours keeps what somebody else changed since; our part is taken out.
  - Folders that write_files made are removed where they are empty; the journal ends.
options:
  keep:
    description: Folders whose files stay as they are now.
    type: list
    elements: path
    default: []
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


def is_edited(entry: dict, now: str | None) -> bool:
    """Whether somebody else changed a file of which only a part is ours."""
    return now is not None and bool(entry["marks"] or entry["lines"]) and digest(now) != entry["written"]


def target(entry: dict, now: str | None) -> str | None:
    """The text to put back; None for no file."""
    before = entry["before"]
    if now is None or not is_edited(entry, now):
        return before["text"] if before else None
    kept = without_block(now, *entry["marks"]) if entry["marks"] else now
    theirs = before["text"].splitlines() if before else []
    kept = with_lines(kept, [], [line for line in entry["lines"] if line not in theirs])
    return kept if before or kept.strip() else None


def restore(module: AnsibleModule, path: str, entry: dict, text: str | None) -> None:
    if text is None:
        with suppress(FileNotFoundError):
            os.unlink(path)
        return
    put(path, text, module.atomic_move)
    if entry["before"]:
        as_before = {name: entry["before"][name] for name in ("mode", "owner", "group")}
        wanted = module.load_file_common_arguments({**module.params, "path": path, **as_before}, path)
        module.set_fs_attributes_if_different(wanted, False)


def remove_folders(entries: dict) -> None:
    folders = {folder for entry in entries.values() for folder in entry["folders"]}
    for folder in sorted(folders, key=len, reverse=True):
        with suppress(OSError):  # something else lies in it, or it has gone
            os.rmdir(folder)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "keep": {"type": "list", "elements": "path", "default": []},
            "journal": {"type": "path", "default": JOURNAL},
        },
        supports_check_mode=True,
    )
    journal = module.params["journal"]
    entries = read_journal(journal)
    kept = tuple(f"{folder}/" for folder in module.params["keep"])
    ours = {path: entry for path, entry in entries.items() if not path.startswith(kept)}
    edited = [path for path, entry in ours.items() if is_edited(entry, text_of(path))]
    if not module.check_mode:
        for path, entry in ours.items():
            restore(module, path, entry, target(entry, text_of(path)))
        remove_folders(ours)
        with suppress(FileNotFoundError):
            os.unlink(journal)
    module.exit_json(changed=bool(ours), paths=sorted(ours), edited=edited)


if __name__ == "__main__":
    main()
