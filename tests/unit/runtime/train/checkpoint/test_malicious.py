"""Forged checkpoints: each form is refused by name, runs nothing, and touches nothing outside."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import signal
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint.metadata import BytesStorageMetadata, MetadataIndex

from runtime.errors import BadInput, CheckpointFailed
from runtime.train.checkpoint.deepspeed.convert import import_checkpoint
from runtime.train.checkpoint.export import export
from runtime.train.checkpoint.folder import (
    entries,
    find,
    leftovers,
    read_latest,
    remove,
    verify,
    write_atomically,
)
from runtime.train.weights.files import INDEX, open_weights
from tests.conftest import RecordRefusal
from tests.unit.runtime.train.checkpoint.forged import (
    METADATA,
    SHARD,
    Attack,
    add,
    change_metadata,
    record,
    sign,
    signed,
    written,
)

DEEPSPEED = Path(__file__).parents[4] / "cases" / "deepspeed" / "zero1"
MOST_BYTES = 32 * 1024 * 1024


@pytest.fixture(autouse=True)
def nobody_waits() -> Iterator[None]:
    """A pipe that is opened for reading waits for ever."""

    def ended(*_: object) -> None:
        raise AssertionError("it waits")

    before = signal.signal(signal.SIGALRM, ended)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    written(tmp_path / "checkpoints")
    (tmp_path / "canary").write_bytes((tmp_path / "checkpoints" / "global_step1" / SHARD).read_bytes())
    return tmp_path / "checkpoints"


def run_by_metadata(folder: Path) -> None:
    (folder / METADATA).write_bytes(pickle.dumps(Attack(folder.parent.parent / "ran")))
    sign(folder)


def run_inside_metadata(folder: Path) -> None:
    """Among genuine classes, where a list of names alone would look."""
    change_metadata(
        folder, lambda found: setattr(found, "planner_data", Attack(folder.parent.parent / "ran"))
    )


def run_by_a_bytes_item(folder: Path) -> None:
    def change(found: Any) -> None:
        found.state_dict_metadata["model.extra"] = BytesStorageMetadata()
        found.storage_data[MetadataIndex("model.extra")] = next(iter(found.storage_data.values()))

    change_metadata(folder, change)


def read_outside_by_metadata(folder: Path) -> None:
    def change(found: Any) -> None:
        for place in found.storage_data.values():
            place.relative_path = "../../canary"

    change_metadata(folder, change)


def claim_a_huge_shape(folder: Path) -> None:
    def change(found: Any) -> None:
        found.state_dict_metadata["model.layer.bias"].size = torch.Size([2**40])

    change_metadata(folder, change)


def claim_endless_dimensions(folder: Path) -> None:
    """The product of so many sides takes hours."""

    class Many:
        def __reduce__(self) -> tuple[type, tuple[tuple[int, ...]]]:
            return torch.Size, ((2**62,) * 90_000,)

    def change(found: Any) -> None:
        found.state_dict_metadata["model.layer.bias"].size = Many()

    change_metadata(folder, change)


def link_a_shard(folder: Path) -> None:
    (folder / SHARD).unlink()
    (folder / SHARD).symlink_to(folder.parent.parent / "canary")
    sign(folder)


def put_a_pipe(folder: Path) -> None:
    files = {path.name: record(path) for path in folder.iterdir() if path.name != "manifest.json"}
    os.mkfifo(folder / "rank_0.pt")
    sign(folder, files={**files, "rank_0.pt": {"size": 0, "sha256": "0" * 64, "rank": 0}})


def ask_for_memory(folder: Path) -> None:
    class Large:
        def __reduce__(self) -> tuple[type, tuple[int]]:
            return bytearray, (2 * MOST_BYTES,)

    torch.save({"tensors": {}, "client_state": Large()}, folder / "progress.pt")
    sign(folder)


def hold_another_path(name: str) -> Callable[[Path], None]:
    return lambda folder: add(folder, name.format(folder.parent.parent))


def nest(folder: Path) -> None:
    (folder / "manifest.json").write_text('{"files": ' + "[" * 100_000 + "]" * 100_000 + "}")


def say_twice(folder: Path) -> None:
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace('"run": "r"', '"run": "r", "run": "r"'))


def swell(folder: Path) -> None:
    with (folder / "manifest.json").open("r+b") as file:
        file.seek(2**33)
        file.write(b"}")


FORMS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a program in .metadata": (run_by_metadata, r"system', which a list of shards does not hold"),
    "a program inside genuine .metadata": (
        run_inside_metadata,
        r"system', which a list of shards does not hold",
    ),
    "a pickled item": (run_by_a_bytes_item, "model.extra is no tensor but a pickled object"),
    "a shard elsewhere": (read_outside_by_metadata, "'../../canary' is not the name of a file in the folder"),
    "a shape beyond its shard": (claim_a_huge_shape, "do not make up its shape"),
    "a manifest that leads up": (
        hold_another_path("../../canary"),
        "'../../canary' is not the name of a file",
    ),
    "a manifest with a whole path": (hold_another_path("{}/canary"), "canary' is not the name of a file"),
    "endless dimensions": (claim_endless_dimensions, "a size has 90000 dimensions, and at most 64 are read"),
    "a shard that is a link": (link_a_shard, "__0_0.distcp cannot be read: it is a link, not a file"),
    "a pipe": (put_a_pipe, "rank_0.pt cannot be read: it is a pipe, not a file"),
    "memory without content": (ask_for_memory, "asks for memory without content"),
    "lists in lists": (nest, "more lists and mappings than are read|nested too deeply"),
    "a key twice": (say_twice, "names a key twice"),
    "gigabytes": (swell, "at most 1572864 are read"),
    "a run that leads up": (lambda folder: sign(folder, run="../../x"), "its run is '../../x'"),
    "an endless time": (lambda folder: sign(folder, saved_at=float("inf")), "Infinity for a number"),
    "a size below nothing": (
        lambda folder: sign(folder, files={"a": {"size": -1, "sha256": "", "rank": 0}}),
        "a file's size is no whole number",
    ),
}


def outcome(root: Path) -> str:
    """What looking after the folder, and exporting from it, says."""
    said = [fault for verdict in verify(find(root)) for fault in verdict.faults]
    try:
        for entry in find(root):
            export(entry, root.parent / "out", dtype=None, file_bytes=10**9)
    except (CheckpointFailed, BadInput) as e:
        said.append(str(e))
    return "; ".join(said)


@pytest.mark.attack("file")
@pytest.mark.parametrize("form", FORMS)
def test_a_forged_checkpoint_is_refused_and_does_nothing(
    root: Path, form: str, record_refusal: RecordRefusal
) -> None:
    forge, said = FORMS[form]
    forge(root / "global_step1")
    canary = (root.parent / "canary").stat()

    tracemalloc.start()
    try:
        words = outcome(root)
        grown = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    record_refusal(words or "it was taken")
    assert not (root.parent / "ran").exists(), "it ran a program"
    assert not (root.parent / "out").exists(), "it was exported"
    assert (root.parent / "canary").stat() == canary
    assert grown < MOST_BYTES
    assert re.search(said, words), words


def test_verify_names_what_a_load_would_refuse(root: Path) -> None:
    run_by_metadata(root / "global_step1")

    [verdict] = verify(find(root))

    assert "which a list of shards does not hold" in verdict.faults[0]


def test_the_untouched_checkpoint_is_exported(root: Path) -> None:
    assert outcome(root) == ""
    assert (root.parent / "out" / "model.safetensors").exists()


@pytest.mark.attack("file")
@pytest.mark.parametrize("named", ["../checkpoints/global_step1", "/etc", "a\nb", "x" * 5000, "\u00e9"])
def test_latest_names_a_checkpoint_of_its_folder(
    root: Path, named: str, record_refusal: RecordRefusal
) -> None:
    (root / "latest").write_text(named)

    with pytest.raises(CheckpointFailed, match=r"read which checkpoint .*latest names") as refusal:
        read_latest(root)
    record_refusal(refusal.value)


@pytest.mark.attack("file")
def test_latest_is_no_link(root: Path, record_refusal: RecordRefusal) -> None:
    (root / "latest").unlink()
    (root / "latest").symlink_to(root.parent / "canary")

    with pytest.raises(CheckpointFailed, match="it is a link, not a file") as refusal:
        read_latest(root)
    record_refusal(refusal.value)


@pytest.mark.attack("file")
def test_an_import_stays_in_the_folder_that_was_named(tmp_path: Path, record_refusal: RecordRefusal) -> None:
    shutil.copytree(DEEPSPEED, tmp_path / "outside")
    (tmp_path / "named").mkdir()
    tag = (DEEPSPEED / "latest").read_text().strip()
    (tmp_path / "named" / "latest").write_text(f"../outside/{tag}")

    with pytest.raises(CheckpointFailed, match="cannot be a part of a file's name") as refusal:
        import_checkpoint(tmp_path / "named", tmp_path / "ours")

    record_refusal(refusal.value)
    assert not (tmp_path / "ours").exists()


def test_a_link_among_checkpoints_is_neither_followed_nor_removed(root: Path) -> None:
    other = written(root.parent / "elsewhere", "theirs")
    (root / "theirs").symlink_to(other)
    (root / ".x.r-s.partial").symlink_to(other)

    found = {entry.tag: entry.fault for entry in entries(root)}
    with pytest.raises(OSError, match="it is a link"):
        remove(root / "theirs")

    assert found["theirs"] == "it is a link, not a folder"
    assert leftovers(root, "r") == []
    assert (other / "manifest.json").exists()


@pytest.mark.attack("file")
def test_nothing_is_written_through_a_link(root: Path, record_refusal: RecordRefusal) -> None:
    (root / f".latest.{os.getpid()}.tmp").symlink_to(root.parent / "canary")
    before = (root.parent / "canary").read_bytes()

    write_atomically(root / "latest", b"global_step1")

    record_refusal(
        f"the file that the link leads to holds {len((root.parent / 'canary').read_bytes())} bytes"
    )
    assert (root.parent / "canary").read_bytes() == before
    assert read_latest(root) == "global_step1"


def weights(folder: Path, header: object = None) -> Path:
    """A safetensors file of one tensor."""
    folder.mkdir()
    text = json.dumps(header or {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(8))
    return folder


@pytest.mark.attack("file")
@pytest.mark.parametrize("name", ["../other/model.safetensors", "{}/other/model.safetensors", "a\0b", ".."])
def test_an_index_names_files_of_its_folder(tmp_path: Path, name: str, record_refusal: RecordRefusal) -> None:
    weights(tmp_path / "other")
    weights(tmp_path / "named")
    (tmp_path / "named" / INDEX).write_text(json.dumps({"weight_map": {"w": name.format(tmp_path)}}))

    with pytest.raises(BadInput, match="is not the name of a file in the folder") as refusal:
        open_weights(tmp_path / "named")
    record_refusal(refusal.value)


@pytest.mark.attack("file")
def test_a_link_out_of_a_folder_of_weights_is_not_followed_but_that_of_a_cache_is(
    tmp_path: Path, record_refusal: RecordRefusal
) -> None:
    weights(tmp_path / "other")
    (tmp_path / "named").mkdir()
    (tmp_path / "named" / "model.safetensors").symlink_to(tmp_path / "other" / "model.safetensors")
    cache = tmp_path / "models--x"
    (cache / "snapshots" / "rev").mkdir(parents=True)
    weights(cache / "blobs")
    (cache / "snapshots" / "rev" / "model.safetensors").symlink_to("../../blobs/model.safetensors")

    with pytest.raises(BadInput, match="outside of its folder") as refusal:
        open_weights(tmp_path / "named")

    record_refusal(refusal.value)
    assert list(open_weights(cache / "snapshots" / "rev")) == ["w"]
    assert list(open_weights(tmp_path / "named" / "model.safetensors")) == ["w"]


HEADERS: dict[str, object] = {
    "a size below nothing": {"w": {"dtype": "F32", "shape": [-1, -2], "data_offsets": [0, 8]}},
    "a type that is none": {"w": {"dtype": ["F32"], "shape": [2], "data_offsets": [0, 8]}},
    "a place before the data": {"w": {"dtype": "F32", "shape": [2], "data_offsets": [-8, 0]}},
    "no mapping": {"w": 3},
    "endless dimensions": {"w": {"dtype": "F32", "shape": [1] * 65, "data_offsets": [0, 4]}},
    "no shape": {"w": {"dtype": "F32", "shape": 2, "data_offsets": [0, 8]}},
    "not a number": {"w": {"dtype": "F32", "shape": [2.0], "data_offsets": [0, 8]}},
}


@pytest.mark.attack("file")
@pytest.mark.parametrize("header", HEADERS)
def test_a_forged_header_of_weights_is_refused(
    tmp_path: Path, header: str, record_refusal: RecordRefusal
) -> None:
    with pytest.raises(BadInput, match="no whole safetensors file") as refusal:
        open_weights(weights(tmp_path / "named", HEADERS[header]))
    record_refusal(refusal.value)


def test_a_signature_is_made_as_ours(root: Path) -> None:
    text = (root / "global_step1" / "manifest.json").read_text()
    body = json.loads(text)
    body.pop("sha256")

    assert signed(body) == text
