"""A delivery among processes of this machine: each node gets the tree, the source sends it once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from provision.errors import ProvisionError
from provision.store.delivery import Part
from provision.store.node.manifest import CHUNK_BYTES
from provision.store.node.tree import differences
from provision.store.node_state import Said
from provision.store.program import node_program
from provision.store.source import FolderSource, folder_source
from tests.conftest import RecordRefusal
from tests.unit.provision.store.many_nodes import ManyNodes, model, shown

MIB = 1 << 20
OLD = Path.home() / ".pyenv/versions/3.8.18/bin/python"


def nodes(folder: Path, count: int, **other: str) -> ManyNodes:
    return ManyNodes(folder, [f"te{number}" for number in range(1, count + 1)], **other)


def odd(many: ManyNodes, source: FolderSource) -> dict[str, list[str]]:
    """What of each node's tree is not as it was sent."""
    return {
        name: differences(str(many.tree(name, source)), source.manifest, full=True, threads=2)
        for name in many.names
        if many.tree(name, source).exists()
    }


def as_it_was(many: ManyNodes) -> dict[str, list[str]]:
    return {name: [] for name in many.names}


@pytest.mark.parametrize("count", [1, 3, 8])
def test_every_node_gets_the_tree_and_the_source_sends_it_once(tmp_path: Path, count: int) -> None:
    many, source = nodes(tmp_path, count), model(tmp_path / "model", 17 * MIB, 5 * MIB, 100)

    ended = many.deliver(source)

    assert {name: said.state for name, said in ended.said.items()} == dict.fromkeys(many.names, "whole")
    assert ended.lost == {}
    assert odd(many, source) == as_it_was(many)
    assert ended.source_bytes == source.manifest.bytes
    assert {said.got for said in ended.said.values()} == {source.manifest.bytes}
    assert [list((many.store(name) / "partial").glob("*/")) for name in many.names] == [[]] * count
    assert not list(many.root.glob("*/store/*.socket"))


@pytest.mark.skipif(not OLD.exists(), reason="no Python 3.8 on this machine")
def test_nodes_of_python_3_8_do_so_too(tmp_path: Path) -> None:
    many, source = nodes(tmp_path, 2, python=str(OLD)), model(tmp_path / "model", 9 * MIB)

    ended = many.deliver(source)

    assert odd(many, source) == as_it_was(many)
    assert ended.lost == {}


def test_a_second_delivery_sends_nothing(tmp_path: Path) -> None:
    many, source = nodes(tmp_path, 2), model(tmp_path / "model", 5 * MIB)
    many.deliver(source)

    ended = many.deliver(source)

    assert ended.source_bytes == 0
    assert {said.got for said in ended.said.values()} == {0}


def test_a_changed_file_moves_alone_and_the_rest_is_on_the_disk_once(tmp_path: Path) -> None:
    many, before = nodes(tmp_path, 2), model(tmp_path / "model", 9 * MIB, 2 * MIB)
    many.deliver(before)
    (tmp_path / "model" / "1.safetensors").write_bytes(os.urandom(2 * MIB))
    after = folder_source(tmp_path / "model", "model")

    ended = many.deliver(after)

    assert ended.source_bytes == 2 * MIB
    assert odd(many, after) == odd(many, before) == as_it_was(many)
    one, other = (many.tree("te2", source) / "0.safetensors" for source in (before, after))
    assert one.stat().st_ino == other.stat().st_ino


def test_who_has_it_already_serves_the_others(tmp_path: Path) -> None:
    many, source = nodes(tmp_path, 3), model(tmp_path / "model", 9 * MIB)
    many.deliver(source)
    for name in ("te1", "te3"):
        shutil.rmtree(many.store(name))

    ended = many.deliver(source)

    assert ended.source_bytes == 0
    assert odd(many, source) == as_it_was(many)


def when(
    share: float, name: str, source: FolderSource, act: Callable[[], None]
) -> Callable[[Mapping[str, Part]], None]:
    """Does something once, as soon as a node has that share of the tree."""
    done = threading.Event()

    def look(parts: Mapping[str, Part]) -> None:
        if not done.is_set() and shown(parts)[name] >= share * source.manifest.bytes:
            done.set()
            act()

    return look


@pytest.mark.parametrize(
    ("count", "lost"),
    [
        pytest.param(4, "te1", id="the first"),
        pytest.param(4, "te2", id="the second"),
        pytest.param(4, "te4", id="the last", marks=pytest.mark.long),  # nobody is behind it
        pytest.param(8, "te4", id="of two lanes", marks=pytest.mark.long),  # each is a lane as above
    ],
)
def test_a_node_that_is_lost_is_bypassed(tmp_path: Path, count: int, lost: str) -> None:
    many, source = nodes(tmp_path, count), model(tmp_path / "model", 60 * MIB)
    kill = when(0.3, lost, source, lambda: many.kill(lost))

    ended = many.delivery(source, kill, bytes_per_second=20e6).run()

    assert list(ended.lost) == [lost]
    assert {name: said.state for name, said in ended.said.items()} == {
        name: "whole" for name in many.names if name != lost
    }
    assert all(not found for name, found in odd(many, source).items() if name != lost)
    # Who is next to it asks once more for the chunk that was on its way.
    assert ended.source_bytes <= source.manifest.bytes * (1.3 if lost == "te1" else 1) + 2 * CHUNK_BYTES


def test_a_node_that_comes_late_is_served_by_another(tmp_path: Path) -> None:
    many, source = nodes(tmp_path, 3), model(tmp_path / "model", 40 * MIB)
    (tmp_path / "down-te2").touch()
    come = when(0.5, "te3", source, (tmp_path / "down-te2").unlink)

    ended = many.delivery(source, come, bytes_per_second=20e6, lost_seconds=20).run()

    assert ended.lost == {}
    assert odd(many, source) == as_it_was(many)
    assert ended.source_bytes <= source.manifest.bytes + 2 * CHUNK_BYTES


@pytest.mark.attack("node")
def test_a_byte_that_changes_on_the_wire_is_named_and_fetched_again(
    tmp_path: Path, record_refusal: RecordRefusal
) -> None:
    many, source = nodes(tmp_path, 3), model(tmp_path / "model", 9 * MIB)
    (tmp_path / "flip-te1").touch()

    ended = many.deliver(source)

    assert odd(many, source) == as_it_was(many)
    (note,) = ended.said["te2"].notes
    assert note.startswith("te1: chunk 0 (0.safetensors) came with other bytes")
    record_refusal(note)


def test_a_byte_that_changes_in_the_source_ends_the_delivery(tmp_path: Path) -> None:
    many, source = nodes(tmp_path, 2), model(tmp_path / "model", 9 * MIB)
    with (tmp_path / "model" / "0.safetensors").open("r+b") as stream:
        stream.seek(5 * MIB)
        stream.write(b"changed")

    with pytest.raises(ProvisionError, match=r"0\.safetensors is not what it was"):
        many.deliver(source)

    assert odd(many, source) == {}


@pytest.mark.attack("node")
def test_a_byte_that_changes_in_a_node_s_tree_is_named_and_not_passed_on(
    tmp_path: Path, record_refusal: RecordRefusal
) -> None:
    many, source = nodes(tmp_path, 2), model(tmp_path / "model", 9 * MIB)
    many.deliver(source)
    shutil.rmtree(many.store("te2"))
    file = many.tree("te1", source) / "0.safetensors"
    file.chmod(0o644)
    with file.open("r+b") as stream:
        stream.seek(5 * MIB)
        stream.write(b"changed")
    file.chmod(0o444)

    ended = many.deliver(source, lost_seconds=1)

    assert odd(many, source)["te1"] == ["0.safetensors: its content changed"]
    assert odd(many, source)["te2"] == []
    assert ended.said["te1"].error == "its tree is damaged: 0.safetensors is not what it was"
    record_refusal(ended.said["te1"].error)


def test_a_byte_that_changes_while_it_arrives_is_fetched_again(tmp_path: Path) -> None:
    many, source = nodes(tmp_path, 2), model(tmp_path / "model", 40 * MIB)

    def spoil() -> None:
        with (many.store("te1") / "partial" / source.digest / "tree" / "0.safetensors").open("r+b") as stream:
            stream.seek(10)
            stream.write(b"changed")

    ended = many.delivery(source, when(0.4, "te1", source, spoil), bytes_per_second=40e6).run()

    assert odd(many, source) == as_it_was(many)
    assert ended.said["te1"].got > source.manifest.bytes


def test_somebody_else_s_folder_is_left_alone(tmp_path: Path) -> None:
    many, source = nodes(tmp_path, 2), model(tmp_path / "model", 5 * MIB)
    many.store("te1").mkdir()
    (many.store("te1") / "thesis").write_text("mine")
    (tmp_path / "elsewhere").mkdir()
    many.store("te2").symlink_to(tmp_path / "elsewhere")

    ended = many.deliver(source)

    assert [said.state for said in ended.said.values()] == ["failed", "failed"]
    assert all("is somebody else's" in said.error for said in ended.said.values())
    assert [path.name for path in many.store("te1").iterdir()] == ["thesis"]
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_disk_that_is_too_small_is_refused_before_anything_comes(tmp_path: Path) -> None:
    many, source = nodes(tmp_path, 1), model(tmp_path / "model", 5 * MIB)

    ended = many.deliver(source, reserve_bytes=1 << 50)

    assert "MiB have to stay free" in ended.said["te1"].error
    assert ended.said["te1"].got <= CHUNK_BYTES


@pytest.mark.skipif(os.geteuid() != 0, reason="root mounts a small disk")
def test_a_disk_that_fills_up_is_said_in_words_and_what_came_stays(tmp_path: Path) -> None:
    many, source = nodes(tmp_path, 2), model(tmp_path / "model", 40 * MIB)
    disk = tmp_path / "te2"
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=60m", "tmpfs", disk], check=True)
    other = disk / "other"
    fill = when(0.4, "te2", source, lambda: other.write_bytes(bytes(28 * MIB)) and None)
    try:
        full = many.delivery(source, fill, bytes_per_second=20e6).run()
        other.unlink()
        ended = many.deliver(source)

        assert full.said["te1"].state == "whole"
        assert full.said["te2"].state == "failed"
        assert "is full: make room and run it again, what has arrived stays" in full.said["te2"].error
        assert full.said["te2"].bytes > 15 * MIB
        assert ended.said["te2"].got + full.said["te2"].bytes == source.manifest.bytes
        assert odd(many, source) == as_it_was(many)
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_cap_is_kept(tmp_path: Path) -> None:
    many, source = nodes(tmp_path, 1), model(tmp_path / "model", 10 * MIB)
    started = time.monotonic()

    many.deliver(source, bytes_per_second=5e6)

    assert time.monotonic() - started > 1.9


def test_what_nodes_run_is_one_word_that_a_system_takes() -> None:
    assert len(json.dumps(node_program())) < 100_000


def test_a_node_that_finds_nobody_is_served_though_another_is_connected(tmp_path: Path) -> None:
    """The other one had its connection while the first was away, and asks the first again."""
    many, source = nodes(tmp_path, 2), model(tmp_path / "model", MIB)
    delivery = many.delivery(source)
    idle, served = threading.Event(), threading.Event()
    other = threading.Thread(target=idle.wait)
    other.start()
    delivery._lanes, delivery._pushes = [["te1", "te2"]], {(0, "te2"): other}
    delivery._parts = {name: Part(said=Said(state="arriving")) for name in many.names}
    delivery._parts["te1"].said = Said(state="arriving", stuck=(0,))
    delivery._push = lambda name, lane: served.set() if name == "te1" else None  # type: ignore[method-assign]

    delivery._look()

    assert served.wait(5)
    idle.set()
    other.join()
