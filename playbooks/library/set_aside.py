"""Makes room for a folder that is built in place, and keeps what was there until the new one is proven."""

from __future__ import annotations

import os
import shutil
import time

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.node_files import put, text_in
from ansible.module_utils.node_place import Place, Refused

DOCUMENTATION = r"""
module: set_aside
short_description: Keep what a folder held while another one is built in its place
description:
  - An environment cannot be moved once it is built, so what was there before goes aside under a hidden name.
  - Nothing is deleted but what says itself that a build of ours began it, or with C(removed).
options:
  path:
    description: The folder that is built.
    type: path
    required: true
  claim:
    description: The file below O(path) that says, from before the build on, that it is ours and unfinished.
    type: str
    required: true
  state:
    description:
      - C(begun) removes what an unfinished build of ours left, sets all else aside, claims the new folder.
      - C(back) removes what an unfinished build of ours left, and puts back what was set aside.
      - C(kept) gives what was set aside a name of its own, O(path) with C(.before-) and the time.
      - C(removed) deletes what was set aside.
    type: str
    required: true
    choices: [begun, back, kept, removed]
author: Clusterwright
"""

RETURN = r"""
aside:
  description: Where what was there lies now; empty where nothing was there or it was removed.
  returned: always
  type: str
put_back:
  description: Whether what was there is in its old place again.
  returned: always
  type: bool
"""

UNFINISHED = '{"unfinished": true}\n'


def beside(path: str, suffix: str) -> str:
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name}.{suffix}")


def is_unfinished(path: str, claim: str) -> bool:
    if os.path.islink(path) or not os.path.isdir(path):
        return False
    try:
        with Place(os.path.join(path, claim)) as place:
            found = place.read()
    except (OSError, Refused):  # ours can be read
        return False
    return found is not None and text_in(found[0]) == UNFINISHED


def holds_something(path: str) -> bool:
    """An empty folder holds nothing; a link or a file is something, wherever it leads."""
    if os.path.islink(path) or not os.path.isdir(path):
        return os.path.lexists(path)
    return bool(os.listdir(path))


def begin(path: str, claim: str) -> str:
    """Returns where what was there lies now."""
    if is_unfinished(path, claim):
        shutil.rmtree(path)
    aside = beside(path, "previous")
    if holds_something(path):
        if os.path.lexists(aside):
            raise FileExistsError(f"{aside} is there already: move it to another name yourself")
        os.rename(path, aside)
    claimed(path, claim)
    return aside if os.path.lexists(aside) else ""


def claimed(path: str, claim: str) -> None:
    """Makes the folder with its claim in it, in one step."""
    new = beside(path, "begun")
    shutil.rmtree(new, ignore_errors=True)
    with Place(os.path.join(new, claim)) as place:
        put(place, {"text": UNFINISHED, "mode": "0644", "owner": None, "group": None})
    os.rename(new, path)


def put_back(path: str, claim: str) -> bool:
    if is_unfinished(path, claim):
        shutil.rmtree(path)
    aside = beside(path, "previous")
    if holds_something(path) or not os.path.lexists(aside):
        return False
    if os.path.isdir(path):
        os.rmdir(path)
    os.rename(aside, path)
    return True


def keep(path: str) -> str:
    kept = free_name(f"{path}.before-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}")
    os.rename(beside(path, "previous"), kept)
    return kept


def free_name(path: str) -> str:
    number, name = 2, path
    while os.path.lexists(name):
        number, name = number + 1, f"{path}-{number}"
    return name


def changes(path: str, claim: str, state: str) -> bool:
    """Whether a run that is not in check mode would change something."""
    return state == "begun" or os.path.lexists(beside(path, "previous")) or is_unfinished(path, claim)


def apply(path: str, claim: str, state: str) -> dict[str, object]:
    aside, is_back = "", False
    if state == "begun":
        aside = begin(path, claim)
    elif state == "back":
        is_back = put_back(path, claim)
    elif state == "kept":
        aside = keep(path)
    else:
        shutil.rmtree(beside(path, "previous"))
    return {"aside": aside, "put_back": is_back}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "claim": {"type": "str", "required": True},
            "state": {"type": "str", "required": True, "choices": ["begun", "back", "kept", "removed"]},
        },
        supports_check_mode=True,
    )
    words = (module.params["path"].rstrip("/"), module.params["claim"], module.params["state"])
    changed, done = changes(*words), {"aside": "", "put_back": False}
    if changed and not module.check_mode:
        try:
            done = apply(*words)
        except (OSError, Refused) as e:
            module.fail_json(msg=f"{words[0]} is not {words[2]}: {e}")
    module.exit_json(changed=changed, **done)


if __name__ == "__main__":
    main()
