"""Layers and manifests, with the real ssh-keygen and the programs that run on nodes."""

from __future__ import annotations

import importlib.util
import io
import itertools
import json
import os
import shutil
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import zstandard

from provision.errors import BadInput, CommandFailed
from provision.images import files
from provision.images.baking import whole
from provision.images.files import MANIFEST, read_manifest, sign_and_write, write_layer
from provision.images.manifest import content_of, parse, payload
from provision.images.programs import PROGRAMS
from tests.conftest import RecordRefusal

CHUNK = 1 << 20
DESCRIBED = {
    "id": "te1-1",
    "node": "te1",
    "commit": "unknown",
    "environment": "",
    "rehearsal": {"verdict": "unproven"},
}
LAYER = {"sha256": "0", "bytes": 1, "unpacked_bytes": 1}


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return new_key(tmp_path, "controller_key")


def new_key(folder: Path, name: str) -> Path:
    path = folder / name
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    return path


def baked(folder: Path, key: Path) -> dict[str, Any]:
    folder.mkdir()
    names = ("system.tar.zst", "data.raw.zst")
    layers = {name: asdict(write_layer(folder / name, [b"a" * 10, b"b"], lambda _: None)) for name in names}
    image = {**DESCRIBED, "layers": layers}
    sign_and_write(folder, image, key=key)
    return image


def test_a_layer_unpacks_to_what_came_and_its_progress_is_told(tmp_path: Path) -> None:
    came: list[int] = []

    layer = write_layer(tmp_path / "x.zst", [b"ab", bytes(CHUNK)], came.append)

    with (tmp_path / "x.zst").open("rb") as file:
        assert zstandard.ZstdDecompressor().stream_reader(file).read() == b"ab" + bytes(CHUNK)
    assert came == [2, CHUNK]
    assert layer.unpacked_bytes == CHUNK + 2
    assert not list(tmp_path.glob("*.partial"))


def test_a_manifest_that_was_signed_is_read(tmp_path: Path, key: Path) -> None:
    image = baked(tmp_path / "image", key)

    assert read_manifest(tmp_path / "image", key=key) == image


@pytest.mark.attack("image")
def test_an_altered_manifest_is_refused(tmp_path: Path, key: Path, record_refusal: RecordRefusal) -> None:
    baked(tmp_path / "image", key)
    path = tmp_path / "image" / MANIFEST
    path.write_text(path.read_text().replace("te1-1", "te1-2"))

    with pytest.raises(BadInput, match="altered since") as refusal:
        read_manifest(tmp_path / "image", key=key)
    record_refusal(refusal.value)


@pytest.mark.attack("image")
@pytest.mark.parametrize("retired", [False, True])
def test_an_image_that_the_clusters_key_signed_is_refused_by_name(
    tmp_path: Path, key: Path, retired: bool, record_refusal: RecordRefusal
) -> None:
    """As every version before did, and as every node still could."""
    of_cluster = new_key(tmp_path, "cluster_key")
    baked(tmp_path / "image", of_cluster)
    if retired:
        of_cluster.with_name("cluster_key.pub").rename(tmp_path / "retired_keys.pub")

    with pytest.raises(
        BadInput, match=r"with the cluster's key, which every node has.*Bake the image again"
    ) as refusal:
        read_manifest(tmp_path / "image", key=key)
    record_refusal(refusal.value)


@pytest.mark.attack("image")
def test_another_key_is_no_controllers(tmp_path: Path, key: Path, record_refusal: RecordRefusal) -> None:
    baked(tmp_path / "image", new_key(tmp_path, "other"))

    with pytest.raises(BadInput, match=f"it is not signed with {key}, or was altered since") as refusal:
        read_manifest(tmp_path / "image", key=key)
    record_refusal(refusal.value)


@pytest.mark.attack("image")
def test_an_altered_layer_is_refused(tmp_path: Path, key: Path, record_refusal: RecordRefusal) -> None:
    baked(tmp_path / "image", key)
    (tmp_path / "image" / "data.raw.zst").write_bytes(b"x")

    with pytest.raises(BadInput, match="the manifest says") as refusal:
        read_manifest(tmp_path / "image", key=key)
    record_refusal(refusal.value)


@pytest.mark.attack("file")
@pytest.mark.parametrize(
    "image",
    [
        {},
        [],
        5,
        {**DESCRIBED, "layers": []},
        {**DESCRIBED, "layers": {}},
        {**DESCRIBED, "layers": {"system.tar.zst": 5, "data.raw.zst": LAYER}},
        {**DESCRIBED, "layers": {"system.tar.zst": {"sha256": 5}, "data.raw.zst": LAYER}},
        {**DESCRIBED, "layers": {"../../../etc/hostname": LAYER}},
        {**DESCRIBED, "layers": {"system.tar.zst": LAYER, "data.raw.zst": LAYER, "../x": LAYER}},
        {"layers": {"system.tar.zst": LAYER, "data.raw.zst": LAYER}},
        {**DESCRIBED, "rehearsal": "proven", "layers": {"system.tar.zst": LAYER, "data.raw.zst": LAYER}},
        {**DESCRIBED, "packages": json.loads("[" * 20 + "]" * 20)},
    ],
)
def test_a_manifest_that_image_bake_did_not_write_is_refused_before_a_layer_is_opened(
    image: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_refusal: RecordRefusal
) -> None:
    monkeypatch.setattr(files, "sha256_of", lambda path: pytest.fail(f"{path} was read"))
    (tmp_path / MANIFEST).write_text(json.dumps({"image": image, "signature": "x"}))

    with pytest.raises(BadInput, match="it is none") as refusal:
        read_manifest(tmp_path, key=None)
    record_refusal(refusal.value)


@pytest.mark.attack("file")
@pytest.mark.parametrize(
    "content",
    [b"[" * 200_000, b'{"image": ' + b"[" * 900 + b"]" * 900, b"\xff", b"1" * 9999, b" " * (1 << 21)],
)
def test_a_text_that_is_no_manifest_is_refused(
    content: bytes, tmp_path: Path, record_refusal: RecordRefusal
) -> None:
    (tmp_path / MANIFEST).write_bytes(content)

    with pytest.raises(BadInput, match=r"it is none|at most 1048576 are read") as refusal:
        read_manifest(tmp_path, key=None)
    record_refusal(refusal.value)


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path, key: Path) -> None:
    with pytest.raises(BadInput, match="image bake"):
        read_manifest(tmp_path, key=key)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"image": 1, "signature": ""}'])
def test_what_is_no_manifest_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="Bake the image again"):
        parse(text, where="x")


def test_one_content_has_one_form_and_one_name() -> None:
    layers = {"b": {"sha256": "2"}, "a": {"sha256": "1"}}

    assert payload({"b": 1, "a": [2]}) == payload({"a": [2], "b": 1})
    assert content_of({"layers": layers}) == content_of({"layers": dict(reversed(layers.items()))})


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [b"x"],
        [bytes(CHUNK)],
        [b"x" * CHUNK, bytes(3 * CHUNK), b"y" * 7],
        [bytes(2 * CHUNK), b"z" * CHUNK],
    ],
)
@pytest.mark.parametrize("step", [1, 17, 1 << 22])
def test_a_disk_arrives_whole_however_its_records_are_cut(parts: list[bytes], step: int) -> None:
    if step == 1:
        parts = [part[:5] for part in parts]
    spec = importlib.util.spec_from_file_location("send_disk", PROGRAMS / "send_disk.py")
    assert spec is not None
    assert spec.loader is not None
    send_disk = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(send_disk)
    sent, disk = io.BytesIO(), b"".join(parts)
    send_disk.send(io.BytesIO(disk), sent)
    records = sent.getvalue()

    cut = (records[at : at + step] for at in range(0, len(records), step))
    arrived = b"".join(whole(cut, node="te1", size=len(disk)))

    assert arrived == disk


@pytest.mark.attack("user")
def test_a_layer_is_never_readable_by_others(tmp_path: Path, record_refusal: RecordRefusal) -> None:
    modes: list[int] = []

    def look(_: int) -> None:
        modes.extend(path.stat().st_mode & 0o777 for path in tmp_path.iterdir())

    write_layer(tmp_path / "x.zst", [b"a", b"b"], look)
    look(0)

    record_refusal(f"modes that were seen: {', '.join(f'{mode:04o}' for mode in sorted(set(modes)))}")
    assert set(modes) == {0o600}


@pytest.mark.attack("node")
def test_a_node_that_sends_without_end_does_not_fill_the_disk(
    tmp_path: Path, record_refusal: RecordRefusal
) -> None:
    spared = shutil.disk_usage(tmp_path).free - (32 << 20)
    endless = (os.urandom(1 << 20) for _ in itertools.count())

    with pytest.raises(CommandFailed, match="what was begun is removed") as refused:
        write_layer(tmp_path / "x.zst", endless, lambda _: None, spared_bytes=spared)

    record_refusal(str(refused.value))
    assert list(tmp_path.iterdir()) == []
