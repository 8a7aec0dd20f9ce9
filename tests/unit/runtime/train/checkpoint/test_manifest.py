"""A manifest proves itself and its files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.train.checkpoint.manifest import MANIFEST, Manifest, Record, inspect
from tests.unit.runtime.train.checkpoint.written import write_checkpoint

SOME = Manifest(
    tag="t",
    run="r",
    step=1,
    stage=2,
    world_size=3,
    saved_at=4.5,
    files={"a": Record(size=1, sha256="x", rank=0)},
)


def test_a_manifest_is_read_as_it_was_written() -> None:
    assert Manifest.from_json(SOME.to_json()) == SOME


@given(st.integers(0, len(SOME.to_json()) - 2), st.integers(1, 127))
def test_no_changed_character_goes_unnoticed(position: int, change: int) -> None:
    text = SOME.to_json()
    changed = text[:position] + chr((ord(text[position]) + change) % 128) + text[position + 1 :]

    try:
        read: Manifest | None = Manifest.from_json(changed)
    except ValueError:
        read = None

    assert read in (None, SOME)  # white space may change


@pytest.mark.parametrize("text", ["", "{}", "[]", "3", '{"sha256": 1}', '{"sha256": "x", "format": 1}'])
def test_what_is_no_manifest_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="it "):
        Manifest.from_json(text)


def test_whole_files_pass(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, 1)

    assert inspect(folder, Manifest.from_json((folder / MANIFEST).read_text())) == []


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: path.unlink(), "__0_0.distcp is missing"),
        (lambda path: os.truncate(path, 5), "__0_0.distcp has 5 bytes, not 170"),
        (lambda path: path.write_bytes(b"x" * 170), "__0_0.distcp does not match its digest"),
    ],
)
def test_damage_is_named(tmp_path: Path, damage: object, said: str) -> None:
    folder = write_checkpoint(tmp_path, 1)
    assert callable(damage)
    damage(folder / "__0_0.distcp")

    found = inspect(folder, Manifest.from_json((folder / MANIFEST).read_text()))

    assert [str(one) for one in found] == [said]
