"""Reads files and runs read-only commands on a node, all in one round trip."""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.block_devices import reported
from ansible.module_utils.node_files import described
from ansible.module_utils.node_place import Place, Refused

DOCUMENTATION = r"""
module: observe
short_description: Read files and run read-only commands in one round trip
description:
  - Changes nothing, so it runs in check mode too.
  - A role observes, decides on the controller, and acts only on a difference.
  - It reads through no link that a user can make, and in a user's folder only what that user can read.
options:
  files:
    description: Paths, patterns (C(*)) or C(~user/...) paths. A path that is not there is reported as null.
    type: list
    elements: str
    default: []
  secrets:
    description: As O(files), but only owner, mode and sha256 are reported.
    type: list
    elements: str
    default: []
  commands:
    description: A name for each list of words to run; no shell is involved.
    type: dict
    default: {}
  timeout_seconds:
    description: Time for each command; one that takes longer ends with rc 124.
    type: int
    default: 15
  disks:
    description:
      - Asks for each disk, and for what uses the folder C(mount_path).
      - C(device) is a path whose real name is told, a link in /dev/disk for example.
    type: dict
    default: {}
  parts:
    description: Several things to observe at once; a name for each set of the options above.
    type: dict
    default: {}
  where:
    description: Parts are observed only where this path is there.
    type: path
    default: /
author: Clusterwright
"""

RETURN = r"""
files:
  description: For each path its text, mode, owner, group and sha256; null for a path that is not there.
  returned: always
  type: dict
commands:
  description: For each name its rc, stdout and stderr; rc 127 where there is no such program.
  returned: always
  type: dict
disks:
  description: The C(devices), C(asked), C(mount) and C(fstab) of O(disks); empty where not asked for.
  returned: always
  type: dict
parts:
  description: For each name of O(parts) its files, commands and disks; empty where O(where) is not there.
  returned: always
  type: dict
"""

OPTIONS: dict[str, dict[str, Any]] = {
    "files": {"type": "list", "elements": "str", "default": []},
    "secrets": {"type": "list", "elements": "str", "default": [], "no_log": False},
    "commands": {"type": "dict", "default": {}},
    "timeout_seconds": {"type": "int", "default": 15},
    "disks": {"type": "dict", "default": {}},
}


def paths_for(pattern: str) -> dict[str, str]:
    """The path as asked (or each match of a pattern), and where it is on this node."""
    actual = os.path.expanduser(pattern)
    if glob.has_magic(actual):
        return {path: path for path in sorted(glob.glob(actual))}
    return {pattern: actual}


def describe(path: str, *, with_text: bool) -> dict[str, object] | None:
    try:
        with Place(path) as place:
            found = place.read()
    except OSError:
        return None
    if found is None:
        return None
    content, status = found
    seen = {**described(status), "sha256": hashlib.sha256(content).hexdigest()}
    return {**seen, "text": content.decode(errors="replace")} if with_text else seen


def run(module: AnsibleModule, words: list[str], timeout_seconds: int) -> dict[str, object]:
    """timeout(1) itself ends with 127 where there is no such program and with 124 when it stopped one."""
    rc, out, err = module.run_command(["timeout", str(timeout_seconds), *[str(word) for word in words]])
    return {"rc": rc, "stdout": out.strip(), "stderr": err.strip()}


def observed(module: AnsibleModule, wanted: Mapping[str, Any]) -> dict[str, object]:
    """The files, the commands and the disks, as the module returns them.

    Raises:
        ValueError: a path leads through a link that a user can make.
    """
    files = {}
    for patterns, with_text in ((wanted["files"], True), (wanted["secrets"], False)):
        for pattern in patterns:
            for path, actual in paths_for(pattern).items():
                try:
                    files[path] = describe(actual, with_text=with_text)
                except Refused as e:
                    raise ValueError(f"read {path}: {e}") from e
    commands = {
        name: run(module, words, wanted["timeout_seconds"]) for name, words in wanted["commands"].items()
    }
    disks = reported(module, **wanted["disks"]) if wanted["disks"] else {}
    return {"files": files, "commands": commands, "disks": disks}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **OPTIONS,
            "parts": {"type": "dict", "default": {}},
            "where": {"type": "path", "default": "/"},
        },
        supports_check_mode=True,
    )
    wanted = module.params
    defaults = {name: option["default"] for name, option in OPTIONS.items()}
    parts = wanted["parts"] if os.path.exists(wanted["where"]) else {}
    try:
        module.exit_json(
            changed=False,
            parts={name: observed(module, {**defaults, **part}) for name, part in parts.items()},
            **observed(module, wanted),
        )
    except ValueError as e:
        module.fail_json(msg=str(e))


if __name__ == "__main__":
    main()
