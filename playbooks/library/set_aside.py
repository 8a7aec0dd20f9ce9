"""Makes room for a folder that is built in place, and keeps what was there until the new one is proven."""

from __future__ import annotations

import os
import shutil
import time

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.node_files import put, text_in
from ansible.module_utils.node_place import Place, Refused
from ansible.module_utils.running import refusal, running_in
from ansible.module_utils.unfinished import files_below, not_ours
from ansible.module_utils.working_folder import closed, left_in, opened, worked_in, working_folder

DOCUMENTATION = r"""
module: set_aside
short_description: Keep what a folder held while another one is built in its place
description:
  - An environment cannot be moved once it is built, so what was there before goes into a working folder.
  - That is C(.clusterwright-NAME) beside it, with a claim of ours in it; one without the claim is refused.
  - Nothing is deleted but with C(removed), or what a build of ours left unfinished, file for file.
  - Where that holds anything else, it gets a name of its own, as with C(kept).
  - Nothing from which a process runs is moved or deleted.
options:
  path:
    description: The folder that is built.
    type: path
    required: true
  claim:
    description: The file below O(path) that says, from before the build on, that it is ours and unfinished.
    type: str
    required: true
  locks:
    description: Files that list the packages of the build; what none of these brought is not the build's own.
    type: list
    elements: path
    default: []
  at_once:
    description: Whether the build has failed just now; it may have left a package half unpacked.
    type: bool
    default: false
  state:
    description:
      - C(opened) makes the working folder, with C(build) in it for locks and downloads.
      - C(begun) clears what an unfinished build of ours left, sets all else aside, claims the new folder.
      - C(back) clears what an unfinished build of ours left, and puts back what was set aside.
      - C(kept) gives what was set aside a name of its own, O(path) with C(.before-) and the time.
      - C(removed) deletes what was set aside.
      - C(closed) removes C(build). All but C(opened) and C(begun) remove the folder where it is empty then.
    type: str
    required: true
    choices: [opened, begun, back, kept, removed, closed]
author: Clusterwright
"""

RETURN = r"""
aside:
  description: Where what was there lies now; empty where nothing was there or it was removed.
  returned: always
  type: str
kept:
  description: Where an unfinished build lies that holds something else; empty where there is none.
  returned: always
  type: str
not_ours:
  description: The first of the files in it that are not the build's, or cannot be told.
  returned: always
  type: list
put_back:
  description: Whether what was there is in its old place again.
  returned: always
  type: bool
"""

NAMED = 5
STATES = ["opened", "begun", "back", "kept", "removed", "closed"]
UNFINISHED = '{"unfinished": true}\n'


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
    aside = os.path.join(opened(path), "previous")
    if holds_something(path):
        if os.path.lexists(aside):
            raise FileExistsError(f"{aside} is there already: move it to another name yourself")
        os.rename(path, aside)
    claimed(path, claim)
    return left_in(path, "previous")


def clear(path: str, claim: str, locks: list[str], at_once: bool) -> dict[str, object]:
    """Removes an unfinished build of ours, or gives it a name of its own where not all of it is ours."""
    if not is_unfinished(path, claim):
        return {"kept": "", "not_ours": []}
    if found := not_ours(path, claim, locks, at_once):
        return {"kept": renamed(path, path), "not_ours": found[:NAMED]}
    shutil.rmtree(path)
    return {"kept": "", "not_ours": []}


def claimed(path: str, claim: str) -> None:
    """Makes the folder with its claim in it, in one step."""
    new = os.path.join(opened(path), "begun")
    if os.path.islink(new) or (os.path.lexists(new) and not os.path.isdir(new)):
        raise FileExistsError(f"{new} is no folder of ours: move it to another name yourself")
    names = [name for name in files_below(new) if name != claim]
    if strange := [name for name in names if not os.path.basename(name).startswith(".clusterwright-")]:
        raise FileExistsError(
            f"{new} holds {strange[0]}, which is not ours: move it to another name yourself"
        )
    shutil.rmtree(new, ignore_errors=True)
    with Place(os.path.join(new, claim)) as place:
        put(place, {"text": UNFINISHED, "mode": "0644", "owner": None, "group": None})
    os.rename(new, path)


def put_back(path: str) -> bool:
    aside = left_in(path, "previous")
    if holds_something(path) or not aside:
        return False
    if os.path.isdir(path):
        os.rmdir(path)
    os.rename(aside, path)
    return True


def renamed(path: str, place: str) -> str:
    """Gives what lies there a name of its own, beside the path."""
    kept = free_name(f"{path}.before-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}")
    os.rename(place, kept)
    return kept


def free_name(path: str) -> str:
    number, name = 2, path
    while os.path.lexists(name):
        number, name = number + 1, f"{path}-{number}"
    return name


def changes(path: str, claim: str, state: str) -> bool:
    """Whether a run that is not in check mode would change something."""
    if state in ("opened", "closed"):
        return worked_in(path) if state == "closed" else not left_in(path, "build")
    if state == "back" and (is_unfinished(path, claim) or worked_in(path)):
        return True
    return state == "begun" or left_in(path, "previous") != ""


def moves(path: str, claim: str, state: str) -> bool:
    """Whether what lies at the path itself goes elsewhere."""
    return (state == "begun" and holds_something(path)) or (state == "back" and is_unfinished(path, claim))


def apply(path: str, claim: str, state: str, locks: list[str], at_once: bool) -> dict[str, object]:
    with Place(working_folder(path)):  # refuses links that a user put in the way
        pass
    if state == "opened":
        os.makedirs(os.path.join(opened(path), "build"), exist_ok=True)
        return {}
    done = settled(path, claim, state, locks, at_once)
    if state != "begun":
        closed(path)
    return done


def settled(path: str, claim: str, state: str, locks: list[str], at_once: bool) -> dict[str, object]:
    previous = left_in(path, "previous")
    if state in ("kept", "removed"):
        if state == "kept" or running_in(previous):
            return {"aside": renamed(path, previous)}
        shutil.rmtree(previous)
        return {}
    if state == "closed":
        return {}
    if state == "begun":
        opened(path)
    cleared = clear(path, claim, locks, at_once)
    if state == "begun":
        return {**cleared, "aside": begin(path, claim)}
    return {**cleared, "put_back": put_back(path)}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "claim": {"type": "str", "required": True},
            "locks": {"type": "list", "elements": "path", "default": []},
            "at_once": {"type": "bool", "default": False},
            "state": {"type": "str", "required": True, "choices": STATES},
        },
        supports_check_mode=True,
    )
    os.umask(0o022)  # the users of jobs go through the folders that are made here
    path, claim, state = module.params["path"].rstrip("/"), module.params["claim"], module.params["state"]
    done = {"aside": "", "put_back": False, "kept": "", "not_ours": []}
    changed = changes(path, claim, state)
    if changed and moves(path, claim, state) and (why := refusal(path)):
        module.fail_json(msg=f"{path} is not {state}: {why}")
    if changed and not module.check_mode:
        try:
            done.update(apply(path, claim, state, module.params["locks"], module.params["at_once"]))
        except (OSError, Refused) as e:
            module.fail_json(msg=f"{path} is not {state}: {e}")
    module.exit_json(changed=changed, **done)


if __name__ == "__main__":
    main()
