"""What is said of an image, and signed: in the image itself, and in the folder that `image bake` writes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from provision.errors import BadInput

# What a signature is for; one made for something else does not count.
NAMESPACE = "clusterwright-image"
PROVEN, REFUSED, UNPROVEN = "proven", "refused", "unproven"

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
    except (ValueError, KeyError, TypeError) as e:
        raise BadInput(
            f"read the manifest {where}", found=f"it is none ({e!r})", fix="Bake the image again."
        ) from e
    return image, signature


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
