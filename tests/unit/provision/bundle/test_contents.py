from __future__ import annotations

import json
from typing import Any

import pytest

from provision.bundle.contents import Contents, File, contents_of, parse, text_of
from provision.errors import BadInput
from provision.store.node.manifest import digest_of

SHA = "a" * 64


def bundle(*paths: str) -> Contents:
    return contents_of({"cluster": "te"}, [File(path=path, size=3, sha256=SHA) for path in paths])


def changed(**parts: Any) -> bytes:
    told = json.loads(text_of(bundle("apt/Release"))) | parts
    return f"{json.dumps(told, sort_keys=True, indent=0)}\n".encode()


def one(**parts: Any) -> list[dict[str, Any]]:
    return [{"path": "a", "size": 1, "sha256": SHA} | parts]


def test_what_is_written_is_read_and_order_makes_no_other_digest() -> None:
    text = text_of(bundle("wheels/b", "apt/a", "wheels/a"))

    assert parse(text, name="x") == bundle("apt/a", "wheels/a", "wheels/b")
    assert digest_of(text) == digest_of(text_of(bundle("apt/a", "wheels/b", "wheels/a")))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"\xff", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"[]", "other parts"),
        (text_of(bundle("a")) + b" ", "not written as"),
        (changed(version=2), "of version 2"),
        (changed(made_for={"cluster": "te\x1b[2J"}), "does not say"),
        (changed(files={}), "no list"),
        (changed(files=[*one(path="b"), *one(path="a")]), "not sorted"),
        (changed(files=[*one(), *one()]), "not sorted"),
        (changed(files=one(path="../a")), "no path"),
        (changed(files=one(path="/a")), "no path"),
        (changed(files=one(path="a//b")), "no path"),
        (changed(files=one(path="a\nb")), "no path"),
        (changed(files=one(path=7)), "no text"),
        (changed(files=one(path="bundle.json")), "which is itself"),
        (changed(files=[*one(path="a"), *one(path="a/b")]), "which is a file"),
        (changed(files=one(size=-1)), "the size -1"),
        (changed(files=one(size=True)), "the size True"),
        (changed(files=one(sha256="A" * 64)), "no sha256"),
        (changed(files=one(mode=1)), "other parts"),
    ],
)
def test_a_manifest_that_is_none_is_refused(text: bytes, why: str) -> None:
    with pytest.raises(BadInput, match=why):
        parse(text, name="/media/bundle/bundle.json")
