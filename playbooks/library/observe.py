"""Reads files and runs read-only commands on a node, all in one round trip."""

from __future__ import annotations

import glob
import hashlib
import os

from ansible.module_utils.basic import AnsibleModule
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
"""


def paths_for(pattern: str) -> dict[str, str]:
    """The path as asked (or each match of a pattern), and where it is on this node."""
    actual = os.path.expanduser(pattern)
    if glob.has_magic(actual):
        return {path: path for path in sorted(glob.glob(actual))}
    return {pattern: actual}


def describe(path: str, *, with_text: bool) -> dict[str, str] | None:
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


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "files": {"type": "list", "elements": "str", "default": []},
            "secrets": {"type": "list", "elements": "str", "default": [], "no_log": False},
            "commands": {"type": "dict", "default": {}},
            "timeout_seconds": {"type": "int", "default": 15},
        },
        supports_check_mode=True,
    )
    wanted = module.params
    files = {}
    for patterns, with_text in ((wanted["files"], True), (wanted["secrets"], False)):
        for pattern in patterns:
            for path, actual in paths_for(pattern).items():
                try:
                    files[path] = describe(actual, with_text=with_text)
                except Refused as e:
                    module.fail_json(msg=f"read {path}: {e}")
    commands = {
        name: run(module, words, wanted["timeout_seconds"]) for name, words in wanted["commands"].items()
    }
    module.exit_json(changed=False, files=files, commands=commands)


if __name__ == "__main__":
    main()
