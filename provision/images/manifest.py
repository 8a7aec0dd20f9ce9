"""What is said of an image, and signed: in the image itself, and in the folder that `image bake` writes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Any

from provision.errors import BadInput

# What a signature is for; one made for something else does not count.
NAMESPACE = "clusterwright-image"
PROVEN, REFUSED, UNPROVEN = "proven", "refused", "unproven"

# Of a manifest, which names some hundreds of packages, and of lists and objects in one another.
MOST_BYTES = 1 << 20
_DEEPEST = 8
_FINDING = {"rule": str, "path": str, "found": str, "mended": bool}
_LAYER = {"sha256": str, "bytes": int, "unpacked_bytes": int}

Image = Mapping[str, Any]


def payload(image: Image) -> str:
    """What is signed: one form for one content."""
    return json.dumps(image, sort_keys=True, separators=(",", ":"))


def sealed(image: Image, signature: str) -> str:
    """The text of the file."""
    return json.dumps({"image": image, "signature": signature}, indent=2) + "\n"


def parse(text: str, *, where: str) -> tuple[dict[str, Any], str]:
    """Description and signature from a file's text.

    Raises:
        BadInput: it is no manifest.
    """
    try:
        found = json.loads(text)
        image, signature = dict(found["image"]), str(found["signature"])
        _check_depth(image, _DEEPEST)
    except (ValueError, KeyError, TypeError, RecursionError) as e:
        raise _no_manifest(where, repr(e)) from e
    return image, signature


def _no_manifest(where: str, found: str) -> BadInput:
    return BadInput(f"read the manifest {where}", found=f"it is none ({found})", fix="Bake the image again.")


def _check_depth(value: object, left: int) -> None:
    if isinstance(value, (dict, list)):
        if left == 0:
            raise ValueError("it is nested too deeply")
        for one in value.values() if isinstance(value, dict) else value:
            _check_depth(one, left - 1)


def check_baked(image: Image, names: Collection[str], *, where: str) -> None:
    """Refuses a description without what is asked of it, or with other layers than those called `names`.

    Raises:
        BadInput: it says what is missing.
    """
    layers, rehearsal = image.get("layers"), image.get("rehearsal")
    odd = [name for name in ("id", "node", "commit", "environment") if not isinstance(image.get(name), str)]
    if not isinstance(rehearsal, dict) or not isinstance(rehearsal.get("verdict"), str):
        odd.append("rehearsal")
    if not isinstance(layers, dict) or layers.keys() != set(names):
        odd.append("layers")
    else:
        odd += [name for name in names if not _is(layers[name], _LAYER)]
    if odd:
        raise _no_manifest(where, f"without {', '.join(odd)} as `image bake` writes them")


def _is(value: object, kinds: Mapping[str, type]) -> bool:
    """Whether it is an object with exactly these members, each of its type."""
    return (
        isinstance(value, dict)
        and value.keys() == kinds.keys()
        and all(type(value[name]) is kind for name, kind in kinds.items())
    )


def findings_in(text: str) -> list[dict[str, Any]]:
    """What image_tree.py found: rule, path, found, and whether image.yml mends it.

    Raises:
        ValueError: it is something else.
    """
    try:
        found = json.loads(text)
    except RecursionError as e:
        raise ValueError("it is nested too deeply") from e
    if not isinstance(found, list) or not all(_is(one, _FINDING) for one in found):
        raise ValueError("it is no list of findings")
    return found


def refuse_another(image: Image, *, node: str, since: str, where: str) -> None:
    """Refuses a description, signed though it is, that this run of image.yml did not leave on this node.

    Args:
        since: when the run began, in UTC, as `made` is written.

    Raises:
        BadInput: it is another node's, of an earlier run, or says more than a node can know.
    """
    made = str(image.get("made", ""))
    found = [
        *([f"it is of {ascii(image.get('node'))[:80]}"] if image.get("node") != node else []),
        *([f"it was made at {ascii(made)[:80]}, before {since}"] if made < since else []),
        *(
            ["it has another verdict than unproven"]
            if image.get("rehearsal") != {"verdict": UNPROVEN}
            else []
        ),
        *(["it names layers"] if "layers" in image else []),
    ]
    if found:
        raise BadInput(
            f"take {where} for what image.yml left there",
            found="; ".join(found),
            fix=f"Somebody put it there: look at {node} (provision audit), and bake a node that you trust.",
        )


def finding(found: Mapping[str, str]) -> str:
    """One thing that image_tree.py found, as a phrase."""
    return f"{found['rule']}: {found['path']}: {found['found']}"


def content_of(image: Image) -> str:
    """Names what an image's layers hold: 16 hexadecimal digits."""
    digests = "".join(layer["sha256"] for _, layer in sorted(image["layers"].items()))
    return hashlib.sha256(digests.encode()).hexdigest()[:16]


def summary(image: Image) -> str:
    """The image in one line, with its verdict."""
    verdict = image["rehearsal"]["verdict"]
    unproven = "" if verdict == PROVEN else "; provision image rehearse proves it"
    return f"{image['id']} from {image['node']}, commit {image['commit'][:12]}: {verdict}{unproven}"
