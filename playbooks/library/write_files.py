"""Writes several small files on a node in one round trip: all, or none where a check of them fails."""

from __future__ import annotations

import os

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.node_files import (
    JOURNAL,
    digest,
    missing_folders,
    put,
    read_journal,
    state_of,
    text_of,
    with_block,
    with_lines,
    write_journal,
)

DOCUMENTATION = r"""
module: write_files
short_description: Write several small text files in one round trip
description:
  - Each file is written under a temporary name in its folder and renamed. Missing folders are made.
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
      lines: {description: "As C(block), lines that must be there, in any place.", type: list, elements: str}
      without: {description: Lines that must not be there., type: list, elements: str}
      mode: {description: Permissions., type: str, default: "0644"}
      owner: {description: Owner., type: str, default: root}
      group: {description: Group., type: str, default: root}
      directory_mode: {description: Permissions of a missing folder., type: str, default: "0755"}
  validate:
    description: Words of a command that must succeed once the files are in place.
    type: list
    elements: str
    default: []
  journal:
    description: Where the node keeps what its files were before.
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
    "lines": {"type": "list", "elements": "str", "default": []},
    "without": {"type": "list", "elements": "str", "default": []},
    "mode": {"type": "str", "default": "0644"},
    "owner": {"type": "str", "default": "root"},
    "group": {"type": "str", "default": "root"},
    "directory_mode": {"type": "str", "default": "0755"},
}


def attributes(module: AnsibleModule, wanted: dict[str, str], path: str) -> dict[str, object]:
    named = {"path": path, "mode": wanted["mode"], "owner": wanted["owner"], "group": wanted["group"]}
    return module.load_file_common_arguments({**module.params, **named}, path)


def wanted_text(wanted: dict, before: str) -> str:
    """The whole text that a file should have."""
    if wanted["content"] is not None:
        return wanted["content"]
    text = before
    if differs_in_lines(wanted, before):
        text = with_lines(before, wanted["lines"], wanted["without"])
    return with_block(text, wanted["block"]) if wanted["block"] else text


def differs_in_lines(wanted: dict, before: str) -> bool:
    found = set(before.splitlines())
    return not found.issuperset(wanted["lines"]) or not found.isdisjoint(wanted["without"])


def make_folder(module: AnsibleModule, wanted: dict[str, str], path: str) -> None:
    folder = os.path.dirname(path)
    if os.path.isdir(folder):
        return
    os.makedirs(folder)
    module.set_fs_attributes_if_different(
        attributes(module, {**wanted, "mode": wanted["directory_mode"]}, folder), False
    )


def write(module: AnsibleModule, wanted: dict, path: str, before: str | None, text: str) -> bool:
    """Makes one file as wanted; returns whether anything differed."""
    differs = before != text
    if differs and module.check_mode:
        return True
    if differs:
        note(module.params["journal"], wanted, path, text)
        make_folder(module, wanted, path)
        put(path, text, module.atomic_move)
    return module.set_fs_attributes_if_different(attributes(module, wanted, path), differs)


def note(journal: str, wanted: dict, path: str, text: str) -> None:
    """Keeps what the file was before the first change, before it is changed."""
    entries = read_journal(journal)
    first = {"before": state_of(path), "folders": missing_folders(path)}
    marks = wanted["block"].splitlines() if wanted["block"] else []
    ours = {"marks": [marks[0], marks[-1]] if marks else [], "lines": wanted["lines"]}
    entries[path] = {**entries.get(path, first), **ours, "written": digest(text)}
    write_journal(journal, entries)


def put_back(module: AnsibleModule, before: dict[str, str | None]) -> None:
    for path, content in before.items():
        if content is None:
            os.unlink(path)
        else:
            put(path, content, module.atomic_move)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "files": {"type": "list", "elements": "dict", "required": True, "options": FILE_OPTIONS},
            "validate": {"type": "list", "elements": "str", "default": []},
            "journal": {"type": "path", "default": JOURNAL},
        },
        supports_check_mode=True,
    )
    before: dict[str, str | None] = {}
    diff = []
    for wanted in module.params["files"]:
        path = os.path.expanduser(wanted["path"])
        old = text_of(path)
        text = wanted_text(wanted, old or "")
        if write(module, wanted, path, old, text):
            before[path] = old
            names = {"before_header": path, "after_header": path}
            diff.append({"before": shown(old or ""), "after": shown(text), **names})
    if module.params["validate"] and before and not module.check_mode:
        rc, out, err = module.run_command(module.params["validate"])
        if rc != 0:
            put_back(module, before)
            refused = " ".join(module.params["validate"])
            module.fail_json(
                msg=f"'{refused}' refuses the new files, so the old ones are back: {(err or out).strip()}"
            )
    module.exit_json(changed=bool(before), paths=sorted(before), diff=diff)


def shown(text: str) -> str:
    """The text as a person may see it."""
    return text.encode("utf-8", "replace").decode()


if __name__ == "__main__":
    main()
