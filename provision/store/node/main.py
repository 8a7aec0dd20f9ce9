"""What a node is asked of its store: one word and a plan in JSON, answered in lines of JSON.

hold (its plan comes on standard input), list, verify, lead, leave, remove, take.
"""

from __future__ import annotations

import json
import os
import shutil
from typing import Any, Callable

from provision.store.node.hold import hold, say
from provision.store.node.manifest import BadManifest, digest_of, text_of
from provision.store.node.packing import packed
from provision.store.node.store import Store, StoreError
from provision.store.node.tree import Tree, differences, freeze

_MOST_NAMED = 200
_THREADS = 4


def trees(plan: dict[str, Any]) -> dict[str, Any]:
    """What is whole here, and what each name leads to."""
    if not os.path.lexists(plan["store"]):
        return {"trees": [], "active": {}}
    store = Store(plan["store"], make=False)
    found = [
        {"name": one.name, "digest": one.digest, "bytes": store.manifest(one.digest).bytes}
        for one in store.whole()
    ]
    return {"trees": found, "active": {name: store.generations(name) for name in store.names()}}


def verify(plan: dict[str, Any]) -> dict[str, Any]:
    """What of a name's tree is not as it was delivered."""
    store = Store(plan["store"], make=False)
    name = plan["name"]
    digest = plan.get("digest") or next(reversed(store.generations(name)), "")
    if not digest:
        raise StoreError(f"{name} leads to nothing here")
    odd = differences(
        store.tree(name, digest), store.manifest(digest), full=plan.get("full", False), threads=_THREADS
    )
    if plan.get("links") and os.path.realpath(os.path.join(plan["links"], name)) != os.path.realpath(
        store.tree(name, digest)
    ):
        odd.insert(0, f"{os.path.join(plan['links'], name)}: it does not lead to its tree")
    return {"digest": digest, "different": len(odd), "differences": odd[:_MOST_NAMED]}


def lead(plan: dict[str, Any]) -> dict[str, Any]:
    """Has a name lead to a tree; says to which one it led before."""
    store = Store(plan["store"], make=False)
    before = next(reversed(store.generations(plan["name"])), "")
    if plan["digest"]:
        store.lead(plan["name"], plan["digest"], plan["links"])
    else:
        store.leave(plan["name"], plan["links"])
    return {"before": before}


def remove(plan: dict[str, Any]) -> dict[str, Any]:
    """Takes trees of a name away; without digests all of them, and the name with them."""
    store = Store(plan["store"], make=False)
    name, digests = plan["name"], plan.get("digests")
    if digests is None:
        store.leave(name, plan["links"])
    elif set(digests) & set(store.generations(name)[-1:]):
        raise StoreError(f"{name} leads to one of them")
    gone = [one for one in store.whole() if one.name == name and (digests is None or one.digest in digests)]
    for one in gone:
        store.remove(one)
    return {"removed": [one.digest for one in gone]}


def take(plan: dict[str, Any]) -> dict[str, Any]:
    """Makes a folder of ours a tree of the store; it is moved, and has to be on the same disk."""
    store, folder = Store(plan["store"]), plan["folder"]
    manifest = packed(folder, plan["kind"], leave_out=plan.get("leave_out", ()), threads=_THREADS)
    text = text_of(manifest)
    digest = digest_of(text)
    if not os.path.isdir(store.tree(plan["name"], digest)):
        for name in plan.get("leave_out", ()):
            shutil.rmtree(os.path.join(folder, name), ignore_errors=True)
        with Tree(folder) as tree:
            freeze(tree, manifest)
        store.put_in_place(plan["name"], digest, folder, text)
    return {"digest": digest, "bytes": manifest.bytes}


ANSWERS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "list": trees,
    "verify": verify,
    "lead": lead,
    "remove": remove,
    "take": take,
}


def main(words: list[str]) -> None:
    os.umask(0o022)  # the users of jobs read what is delivered
    if words[0] == "hold":
        hold()
        return
    try:
        answer = ANSWERS[words[0]](json.loads(words[1]))
    except (OSError, BadManifest) as e:
        answer = {"error": str(e)}
    say(json.dumps(answer))
