"""What `image bake` takes from a node that may have been taken over."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from provision.errors import BadInput, CommandFailed
from provision.images import baking
from provision.images.files import read_manifest, sign
from provision.images.manifest import sealed
from provision.model import Machine
from tests.conftest import RecordRefusal

TE1 = Machine(name="te1", address="10.0.0.11", user="root", key_files=(Path("k"),), known_hosts=(Path("h"),))
SINCE = "2026-05-01T12:00:00Z"
LEFT = {
    "id": "te1-20260501T120100Z",
    "made": "2026-05-01T12:01:00Z",
    "node": "te1",
    "commit": "f" * 40,
    "environment": "0" * 64,
    "data_path": "/data",
    "rehearsal": {"verdict": "unproven"},
}


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("secrets") / "controller_key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    return path


def taken(monkeypatch: pytest.MonkeyPatch, text: str, folder: Path, key: Path) -> dict[str, Any]:
    """What comes of a node that shows this text, and has disks of a few bytes."""

    def run(machine: Machine, argv: Sequence[str], **_: object) -> SimpleNamespace:
        return SimpleNamespace(stdout=text if argv[0] == "cat" else "4\n")

    def download(machine: Machine, argv: Sequence[str], **_: object) -> Iterator[bytes]:
        yield struct.pack(">QQ", 4, 0) if argv[0] == "python3" else b"tar"

    monkeypatch.setattr(baking, "ssh", SimpleNamespace(run=run, download=download))
    return baking.take(TE1, folder, key=key, since=SINCE, on_bytes=lambda name, count: None)


def test_what_image_yml_left_is_signed_with_the_layers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, key: Path
) -> None:
    image = taken(monkeypatch, sealed(LEFT, sign(LEFT, key)), tmp_path / "image", key)

    assert read_manifest(tmp_path / "image", key=key) == image
    assert {**image, "layers": None} == {**LEFT, "layers": None}


@pytest.mark.attack("node")
def test_a_node_does_not_describe_its_image_itself(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, key: Path, record_refusal: RecordRefusal
) -> None:
    own = {**LEFT, "node": "te7", "rehearsal": {"verdict": "proven"}}

    with pytest.raises(BadInput, match="it is not signed with") as refusal:
        taken(monkeypatch, sealed(own, sign(LEFT, key)), tmp_path / "image", key)

    record_refusal(refusal.value)
    assert not (tmp_path / "image").exists()


@pytest.mark.attack("node")
@pytest.mark.parametrize(
    ("other", "found"),
    [
        ({"node": "te7"}, "it is of 'te7'"),
        ({"made": "2026-05-01T11:59:59Z"}, "it was made at '2026-05-01T11:59:59Z', before"),
        ({"rehearsal": {"verdict": "proven", "by": "nobody"}}, "another verdict than unproven"),
        ({"layers": {}}, "it names layers"),
    ],
)
def test_what_the_controller_signed_for_something_else_is_not_taken(
    other: dict[str, Any],
    found: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    key: Path,
    record_refusal: RecordRefusal,
) -> None:
    """A manifest, or what image.yml left at another time or on another node."""
    image = {**LEFT, **other}

    with pytest.raises(BadInput, match=found) as refusal:
        taken(monkeypatch, sealed(image, sign(image, key)), tmp_path / "image", key)

    record_refusal(refusal.value)
    assert not (tmp_path / "image").exists()


def record(offset: int, length: int, content: bytes = b"") -> bytes:
    return struct.pack(">QQ", offset, length) + content


GIB = 1 << 30


@pytest.mark.attack("node")
@pytest.mark.parametrize(
    ("sent", "found"),
    [
        ([record(1 << 62, 0)], "at 4611686018427387904, after 0 of 1073741824"),
        ([record(GIB - 1, 4, b"abcd")], "a record of 4 bytes at 1073741823"),
        ([record(0, (1 << 20) + 1)], "a record of 1048577 bytes"),
        ([record(0, 1 << 63)], "a record of 9223372036854775808 bytes"),
        ([record(8, 4, b"abcd"), record(0, 4, b"efgh")], "at 0, after 12 of"),
        ([record(0, 4, b"abcd")], "no record that ends it, after 4 bytes"),
        ([record(0, 4, b"abcd"), record(1 << 20, 4)], "no record that ends it"),
        ([record(0, 4, b"abcd"), record(4, 0)[:7]], "no record that ends it"),
        ([record(4, 0), b"x"], "more after the record that ends it"),
        ([record(4, 0) + record(8, 0)], "more after the record that ends it"),
        ([], "no record that ends it, after 0 bytes"),
    ],
)
def test_records_that_no_disk_of_that_size_has_are_refused(
    sent: list[bytes], found: str, record_refusal: RecordRefusal
) -> None:
    arrived = bytearray()
    with pytest.raises(CommandFailed, match=found) as refusal:
        arrived.extend(byte for chunk in baking.whole(sent, node="te1", size=GIB) for byte in chunk)

    record_refusal(refusal.value)
    assert len(arrived) <= 16


@pytest.mark.attack("node")
def test_a_record_that_never_ends_is_not_kept(record_refusal: RecordRefusal) -> None:
    asked = 0

    def endless() -> Iterator[bytes]:
        nonlocal asked
        yield record(0, 1 << 40)
        while True:
            asked += 1
            yield b"y"

    with pytest.raises(CommandFailed, match="a record of 1099511627776 bytes") as refusal:
        list(baking.whole(endless(), node="te1", size=1 << 41))

    record_refusal(refusal.value)
    assert asked == 0


@pytest.mark.attack("node")
@pytest.mark.parametrize("said", ["", "-1", "4 EiB", str(1 << 62), "9" * 5000, "\x1b[2J", "\u0664"])
def test_a_size_that_no_disk_has_is_refused(
    said: str, monkeypatch: pytest.MonkeyPatch, record_refusal: RecordRefusal
) -> None:
    monkeypatch.setattr(
        baking, "ssh", SimpleNamespace(run=lambda *_, **__: SimpleNamespace(stdout=said + "\n"))
    )

    with pytest.raises(CommandFailed, match="not a number of bytes up to") as refusal:
        baking._size_of_disk(TE1, "/data")

    record_refusal(refusal.value)


@pytest.mark.attack("node")
@pytest.mark.parametrize(
    "said",
    [
        "",
        "{}",
        "5",
        "[5]",
        '["rule"]',
        "[" * 200_000,
        '[{"rule": "log"}]',
        '[{"rule": "log", "path": 1, "found": "x", "mended": true}]',
        '[{"rule": "log", "path": "x", "found": "x", "mended": "red"}]',
    ],
)
def test_a_preview_that_is_none_is_named(
    said: str, monkeypatch: pytest.MonkeyPatch, record_refusal: RecordRefusal
) -> None:
    answer = SimpleNamespace(stdout=said, stderr="")
    monkeypatch.setattr(baking, "ssh", SimpleNamespace(run=lambda *_, **__: answer))

    with pytest.raises(CommandFailed, match="look at the disks of te1: it does not answer") as refusal:
        baking.preview(TE1, "/data")

    record_refusal(refusal.value)


def test_a_preview_names_what_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    log = {"rule": "log", "path": "var/log/x", "found": "it is not empty", "mended": True}
    answer = SimpleNamespace(stdout=json.dumps([log, {**log, "rule": "manifest"}]), stderr="")
    monkeypatch.setattr(baking, "ssh", SimpleNamespace(run=lambda *_, **__: answer))

    assert baking.preview(TE1, "/data") == [log]


def test_the_data_disk_alone_is_left_out_of_the_system_s_layer_wherever_it_is(tmp_path: Path) -> None:
    for name in ("data/notes", "srv/scratch[1]/models/a", "srv/scratch1/b", "home/srv/scratch[1]/c", "tmp/d"):
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True)
        path.touch()

    words = baking.system_layer(str(tmp_path / "root"), "/srv/scratch[1]")
    layer = subprocess.run(words, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        names = {name.removeprefix("./") for name in tar.getnames()}

    assert {"data/notes", "srv/scratch[1]", "srv/scratch1/b", "home/srv/scratch[1]/c", "tmp"} <= names
    assert not names & {"srv/scratch[1]/models", "srv/scratch[1]/models/a", "tmp/d"}
