"""Writes several small files on a node in one round trip: all, or none where a check of them fails."""

from __future__ import annotations

import os
import tempfile

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: write_files
short_description: Write several small text files in one round trip
description:
  - Each file is written under a temporary name in its folder and renamed. Missing folders are made.
  - With O(validate), what was there before is put back when that command does not succeed.
options:
  files:
    description: The files.
    type: list
    elements: dict
    required: true
    suboptions:
      path: {description: Where; C(~user/...) is understood., type: str, required: true}
      content: {description: The whole text., type: str, required: true}
      mode: {description: Permissions., type: str, default: "0644"}
      owner: {description: Owner., type: str, default: root}
      group: {description: Group., type: str, default: root}
      directory_mode: {description: Permissions of a missing folder., type: str, default: "0755"}
  validate:
    description: Words of a command that must succeed once the files are in place.
    type: list
    elements: str
    default: []
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
    "content": {"type": "str", "required": True},
    "mode": {"type": "str", "default": "0644"},
    "owner": {"type": "str", "default": "root"},
    "group": {"type": "str", "default": "root"},
    "directory_mode": {"type": "str", "default": "0755"},
}


def text_of(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace", newline="") as stream:
            return stream.read()
    except FileNotFoundError:
        return None


def attributes(module: AnsibleModule, wanted: dict[str, str], path: str) -> dict[str, object]:
    named = {"path": path, "mode": wanted["mode"], "owner": wanted["owner"], "group": wanted["group"]}
    return module.load_file_common_arguments({**module.params, **named}, path)


def put(module: AnsibleModule, path: str, content: str) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".clusterwright-")
    with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    module.atomic_move(temporary, path)


def make_folder(module: AnsibleModule, wanted: dict[str, str], path: str) -> None:
    folder = os.path.dirname(path)
    if os.path.isdir(folder):
        return
    os.makedirs(folder)
    module.set_fs_attributes_if_different(
        attributes(module, {**wanted, "mode": wanted["directory_mode"]}, folder), False
    )


def write(module: AnsibleModule, wanted: dict[str, str], path: str, before: str | None) -> bool:
    """Makes one file as wanted; returns whether anything differed."""
    differs = before != wanted["content"]
    if differs and module.check_mode:
        return True
    if differs:
        make_folder(module, wanted, path)
        put(module, path, wanted["content"])
    return module.set_fs_attributes_if_different(attributes(module, wanted, path), differs)


def put_back(module: AnsibleModule, before: dict[str, str | None]) -> None:
    for path, content in before.items():
        if content is None:
            os.unlink(path)
        else:
            put(module, path, content)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "files": {"type": "list", "elements": "dict", "required": True, "options": FILE_OPTIONS},
            "validate": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    before: dict[str, str | None] = {}
    diff = []
    for wanted in module.params["files"]:
        path = os.path.expanduser(wanted["path"])
        old = text_of(path)
        if write(module, wanted, path, old):
            before[path] = old
            names = {"before_header": path, "after_header": path}
            diff.append({"before": old or "", "after": wanted["content"], **names})
    if module.params["validate"] and before and not module.check_mode:
        rc, out, err = module.run_command(module.params["validate"])
        if rc != 0:
            put_back(module, before)
            refused = " ".join(module.params["validate"])
            module.fail_json(
                msg=f"'{refused}' refuses the new files, so the old ones are back: {(err or out).strip()}"
            )
    module.exit_json(changed=bool(before), paths=sorted(before), diff=diff)


if __name__ == "__main__":
    main()
