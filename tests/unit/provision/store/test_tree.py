"""A tree on the disk against its manifest: what differs is named, and no link in the way is followed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from provision.store.node.manifest import CHUNK_BYTES, Manifest
from provision.store.node.packing import packed
from provision.store.node.tree import Tree, differences


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "one").write_bytes(os.urandom(CHUNK_BYTES + 5))
    (folder / "deep" / "er" / "two").write_bytes(b"two")
    (folder / "deep" / "three").write_bytes(b"three")
    (folder / "nothing").write_bytes(b"")
    (folder / "void").mkdir()
    (folder / "link").symlink_to("deep/three")
    return folder


def put(manifest: Manifest, source: Path, target: Path) -> None:
    """Chunk by chunk, the last first."""
    with Tree(str(source)) as one, Tree(str(target)) as other:
        for chunk in reversed(manifest.chunks):
            other.write(chunk, one.read(chunk))


def copied(model: Path, to: Path) -> Manifest:
    """A tree as it is received."""
    manifest = packed(str(model), "model")
    to.mkdir()
    put(manifest, model, to)
    with Tree(str(to)) as tree:
        for folder in manifest.folders:
            tree.folder(folder, make=True)
        for link in manifest.links:
            tree.link(link)
        assert all(tree.finish(file) for file in manifest.files)
    return manifest


def found(path: Path, manifest: Manifest, *, full: bool = True) -> list[str]:
    return differences(str(path), manifest, full=full, threads=2)


def test_a_tree_that_was_put_together_from_its_chunks_is_the_same(model: Path, tmp_path: Path) -> None:
    manifest = copied(model, tmp_path / "copy")

    assert found(tmp_path / "copy", manifest) == []
    assert packed(str(tmp_path / "copy"), "model") == manifest
    assert (tmp_path / "copy" / "one").stat().st_mode & 0o7777 == 0o444


def removed(folder: Path) -> str:
    (folder / "deep" / "three").unlink()
    return "deep/three: it is gone"


def flipped(folder: Path) -> str:
    (folder / "one").chmod(0o644)
    with (folder / "one").open("r+b") as stream:
        stream.seek(CHUNK_BYTES)
        byte = stream.read(1)
        stream.seek(CHUNK_BYTES)
        stream.write(bytes([byte[0] ^ 1]))
    (folder / "one").chmod(0o444)
    return "one: its content changed"


def longer(folder: Path) -> str:
    (folder / "one").chmod(0o644)
    with (folder / "one").open("ab") as stream:
        stream.write(b"x")
    return f"one: it has {CHUNK_BYTES + 6} bytes, not {CHUNK_BYTES + 5}"


def added(folder: Path) -> str:
    (folder / "deep" / "new").write_text("")
    return "deep/new: a file that was not there"


def added_folder(folder: Path) -> str:
    (folder / "fresh").mkdir()
    return "fresh: a folder that was not there"


def elsewhere(folder: Path) -> str:
    (folder / "link").unlink()
    (folder / "link").symlink_to("one")
    return "link: it leads elsewhere"


def setuid(folder: Path) -> str:
    (folder / "one").chmod(0o4555)
    return "one: its mode is 4555"


def open_folder(folder: Path) -> str:
    (folder / "deep").chmod(0o777)
    return "deep: others may write there"


def linked_file(folder: Path) -> str:
    (folder / "one").rename(folder.parent / "one")
    (folder / "one").symlink_to("../one")
    return "one: it is a link, no file"


def linked_folder(folder: Path) -> str:
    (folder / "deep").rename(folder.parent / "deep")
    (folder / "deep").symlink_to("../deep")
    return "deep/three: it is gone"


def no_void(folder: Path) -> str:
    (folder / "void").rmdir()
    return "void: the folder is gone"


def owner(folder: Path) -> str:
    os.chown(folder / "one", 65534, 65534)
    return "one: it belongs to user 65534"


CHANGES = (
    removed,
    flipped,
    longer,
    added,
    added_folder,
    elsewhere,
    setuid,
    open_folder,
    linked_file,
    linked_folder,
    no_void,
)


@pytest.mark.parametrize(
    "change",
    [
        *CHANGES,
        pytest.param(owner, marks=pytest.mark.skipif(os.geteuid() != 0, reason="root gives files away")),
    ],
)
def test_what_changed_is_named(model: Path, tmp_path: Path, change: Callable[[Path], str]) -> None:
    manifest = copied(model, tmp_path / "copy")

    words = change(tmp_path / "copy")

    assert words in found(tmp_path / "copy", manifest)
    assert (words in found(tmp_path / "copy", manifest, full=False)) == (change is not flipped)


def test_a_changed_chunk_is_not_read_and_its_file_is_named(model: Path, tmp_path: Path) -> None:
    manifest = copied(model, tmp_path / "copy")
    flipped(tmp_path / "copy")

    with pytest.raises(OSError, match="one is not what it was"):
        put(manifest, tmp_path / "copy", tmp_path)


@pytest.mark.parametrize("place", ["deep", "deep/three"])
def test_nothing_is_written_through_a_link(model: Path, tmp_path: Path, place: str) -> None:
    manifest = packed(str(model), "model")
    copy, victim = tmp_path / "copy", tmp_path / "victim"
    copy.mkdir()
    victim.mkdir()
    (victim / "three").write_text("mine")
    (copy / place).parent.mkdir(exist_ok=True)
    (copy / place).symlink_to(victim if place == "deep" else victim / "three")

    with pytest.raises(OSError, match=r"."):
        put(manifest, model, copy)

    assert [path.name for path in victim.iterdir()] == ["three"]
    assert (victim / "three").read_text() == "mine"


def test_a_file_that_has_another_name_is_not_written(model: Path, tmp_path: Path) -> None:
    manifest = packed(str(model), "model")
    copy = tmp_path / "copy"
    copy.mkdir()
    (tmp_path / "mine").write_text("mine")
    os.link(tmp_path / "mine", copy / "one")

    with pytest.raises(OSError, match="place of one"):
        put(manifest, model, copy)

    assert (tmp_path / "mine").read_text() == "mine"


def test_no_descriptor_is_left_open(model: Path, tmp_path: Path) -> None:
    manifest = copied(model, tmp_path / "copy")
    before = len(os.listdir("/proc/self/fd"))

    found(tmp_path / "copy", manifest)
    with Tree(str(model)) as tree, pytest.raises(FileNotFoundError):
        tree.folder("deep/none/at")

    assert len(os.listdir("/proc/self/fd")) == before
