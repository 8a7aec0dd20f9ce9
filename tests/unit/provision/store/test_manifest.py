"""A tree's text: one for the same files, and refused where it may be another's or lead out of it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provision.store.node.manifest import (
    CHUNK_BYTES,
    MOST_TEXT_BYTES,
    BadManifest,
    digest_of,
    parse,
    text_of,
)
from provision.store.node.packing import group_of, packed
from tests.conftest import RecordRefusal

A, B = "a" * 64, "b" * 64


def written(document: object) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def file(path: str, **other: Any) -> dict[str, Any]:
    return {"path": path, "size": 3, "mode": "0644", "sha256": A, **other}


def group(name: str, *files: dict[str, Any], **other: Any) -> dict[str, Any]:
    return {"name": name, "files": list(files), "links": [], "folders": [], "chunks": [B], **other}


def document(*groups: dict[str, Any], **other: Any) -> dict[str, Any]:
    return {"version": 1, "kind": "environment", "groups": list(groups), **other}


def link(path: str, target: str) -> dict[str, str]:
    return {"path": path, "target": target}


def with_link(path: str, target: str) -> dict[str, Any]:
    return document(group("a", links=[link(path, target)], chunks=[]))


def test_a_text_is_read_and_written_again() -> None:
    text = written(document(group("a", file("a/b"), links=[link("a/c", "b"), link("a/d", "../a/b")])))

    assert text_of(parse(text)) == text


HOSTILE: dict[str, object] = {
    "an absolute path": document(group("a", file("/etc/passwd"))),
    "a path out of its tree": document(group("a", file("a/../../etc/passwd"))),
    "a folder's own name": document(group("a", file("a/./b"))),
    "a double slash": document(group("a", file("a//b"))),
    "an empty path": document(group("a", file(""))),
    "a line break": document(group("a", file("a\nb"))),
    "an escape": document(group("a", file("a\x1b[2J"))),
    "half a character": document(group("a", file("a\ud800"))),
    "a long name": document(group("a", file("a" * 256))),
    "a long path": document(group("a", file("/".join(["a" * 200] * 6)))),
    "a deep path": document(group("a", file("/".join(["a"] * 65)))),
    "setuid": document(group("a", file("a", mode="4755"))),
    "a mode that is a number": document(group("a", file("a", mode=0o644))),
    "a negative size": document(group("a", file("a", size=-1))),
    "a huge size": document(group("a", file("a", size=1 << 60))),
    "a size that is a fraction": document(group("a", file("a", size=3.0))),
    "a size that is true": document(group("a", file("a", size=True))),
    "a hash in capitals": document(group("a", file("a", sha256=A.upper()))),
    "a short hash": document(group("a", file("a", sha256="a"))),
    "a file twice": document(group("a", file("a"), file("a"))),
    "a file in two groups": document(group("a", file("a")), group("b", file("a"))),
    "a file and a link": document(group("a", file("a"), links=[link("a", "b")])),
    "a group twice": document(group("a", file("a")), group("a", file("b"))),
    "files unsorted": document(group("a", file("b"), file("a"))),
    "groups unsorted": document(group("b", file("b")), group("a", file("a"))),
    "a file below a file": document(group("a", file("a"), file("a/b"))),
    "a file below a link": document(group("a", file("a/b"), links=[link("a", "c")])),
    "a file below an empty folder": document(group("a", file("a/b"), folders=["a"])),
    "too few chunks": document(group("a", file("a", size=CHUNK_BYTES + 1))),
    "too many chunks": document(group("a", file("a"), chunks=[A, B])),
    "chunks of nothing": document(group("a", file("a", size=0))),
    "an absolute link": with_link("a", "/etc/passwd"),
    "a link out of its tree": with_link("a", "../b"),
    "a link down and out": with_link("a/b", "c/../../../d"),
    "a link up through another": with_link("a/b", "../c/.."),
    "a link to nothing": with_link("a", ""),
    "another version": document(version=2),
    "another kind": document(kind="program"),
    "no groups": {"version": 1, "kind": "model"},
    "more than its parts": document(more=1),
    "more in a file": document(group("a", file("a", owner="x"))),
    "a list": [],
    "a group that is text": document("a"),  # type: ignore[arg-type]
    "links that are text": document(group("a", file("a"), links="b")),
    "a path that is a number": document(group("a", file(1))),  # type: ignore[arg-type]
    "names that differ in case alone": document(group("a", file("A"), file("a")), kind="model"),
}


@pytest.mark.attack("node")
@pytest.mark.parametrize("hostile", [pytest.param(text, id=name) for name, text in HOSTILE.items()])
def test_a_hostile_text_is_refused(hostile: object, record_refusal: RecordRefusal) -> None:
    with pytest.raises(BadManifest) as refused:
        parse(written(hostile))

    assert str(refused.value).isprintable()
    record_refusal(refused.value)


@pytest.mark.attack("node")
@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\xff", id="no text"),
        pytest.param(b"[" * 100_000, id="nested"),
        pytest.param(written(document()) + b"\n", id="one byte more"),
        pytest.param(written(document()).replace(b",", b", "), id="spelt otherwise"),
        pytest.param(written(document()).replace(b"{", b'{"kind":"model",', 1), id="a part twice"),
        pytest.param(written(document()).replace(b"1", b"1.0"), id="a number spelt otherwise"),
        pytest.param(b" " * (MOST_TEXT_BYTES + 1), id="too long"),
    ],
)
def test_a_text_that_is_not_the_one_of_its_tree_is_refused(
    text: bytes, record_refusal: RecordRefusal
) -> None:
    with pytest.raises(BadManifest) as refused:
        parse(text)

    record_refusal(refused.value)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_manifest_or_refused(text: bytes) -> None:
    with suppress(BadManifest):
        assert text_of(parse(text)) == text


PARTS = st.sampled_from(["a", "b", "..", ".", "", "c\n", "/", "a/b", "../..", "/etc"])
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | PARTS
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(PARTS, inner), max_leaves=8
)


@given(
    st.sampled_from(
        ["version", "kind", "groups", "name", "files", "links", "folders", "chunks", "path", "size"]
    ),
    VALUES,
)
def test_no_value_of_another_kind_is_a_traceback(part: str, value: object) -> None:
    good = document(group("a", file("a"), links=[link("b", "a")]))
    for place in (good, good["groups"][0], good["groups"][0]["files"][0]):
        if part in place:
            place[part] = value
    with suppress(BadManifest):
        parse(written(good))


@given(st.lists(PARTS, min_size=1, max_size=5), st.lists(PARTS, min_size=1, max_size=5))
def test_no_link_that_is_accepted_leads_out(path: list[str], target: list[str]) -> None:
    try:
        parse(written(with_link("/".join(path), "/".join(target))))
    except BadManifest:
        return

    above = os.path.dirname(f"/tree/{'/'.join(path)}")
    assert f"{os.path.normpath(f'{above}/' + '/'.join(target))}/".startswith("/tree/")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Two shards, of which one takes three chunks, a text, a program and a link."""
    folder = tmp_path / "model"
    (folder / "more").mkdir(parents=True)
    (folder / "one.safetensors").write_bytes(os.urandom(2 * CHUNK_BYTES + 5))
    (folder / "two.safetensors").write_bytes(os.urandom(1000))
    (folder / "config.json").write_text("{}")
    (folder / "empty").write_text("")
    (folder / "more" / "tool").write_text("#!/bin/sh\n")
    (folder / "more" / "tool").chmod(0o700)
    (folder / "latest").symlink_to("two.safetensors")
    return folder


def test_a_folder_gives_one_digest_whatever_its_times(model: Path, tmp_path: Path) -> None:
    before = text_of(packed(str(model), "model"))
    os.utime(model / "config.json", (1, 1))

    after = text_of(packed(str(model), "model", threads=1))

    assert before == after
    assert digest_of(before) == digest_of(after)
    assert text_of(parse(before)) == before
    shown = {f.path: (f.size, f.mode) for f in parse(before).files}
    assert shown["more/tool"] == (10, 0o755)
    assert shown["one.safetensors"] == (2 * CHUNK_BYTES + 5, 0o644)
    assert [one.size for one in parse(before).chunks if one.size > 1000] == [CHUNK_BYTES, CHUNK_BYTES]


def test_a_changed_file_changes_its_groups_chunks_alone(model: Path) -> None:
    before = packed(str(model), "model")
    (model / "two.safetensors").write_bytes(b"other")

    after = packed(str(model), "model")

    changed = {one.sha256 for one in after.chunks} - {one.sha256 for one in before.chunks}
    assert len(changed) == 1
    assert sum(one.size for one in after.chunks if one.sha256 in changed) == 5


@pytest.mark.parametrize(
    ("path", "group"),
    [
        ("lib/python3.11/site-packages/torch/nn/functional.py", "lib/python3.11/site-packages/torch"),
        ("lib/python3.11/site-packages/six.py", "lib"),
        ("lib/libz.so", "lib"),
        ("bin/python", "bin"),
        ("x", "x"),
    ],
)
def test_a_package_of_an_environment_is_a_group(path: str, group: str) -> None:
    assert group_of(path, "environment") == group


def pipe(folder: Path) -> None:
    os.mkfifo(folder / "pipe")


def leads_out(folder: Path) -> None:
    (folder / "out").symlink_to("/etc/passwd")


def odd_name(folder: Path) -> None:
    (folder / "a\nb").write_text("")


def no_text(folder: Path) -> None:
    (folder / os.fsdecode(b"\xff")).write_text("")


@pytest.mark.parametrize("spoil", [pipe, leads_out, odd_name, no_text])
def test_what_no_tree_may_hold_is_refused_by_name(model: Path, spoil: Callable[[Path], None]) -> None:
    spoil(model)

    with pytest.raises(BadManifest, match=r"pipe|out|a\\nb|udcff"):
        packed(str(model), "model")
