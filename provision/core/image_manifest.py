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
