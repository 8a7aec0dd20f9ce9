from __future__ import annotations

from pathlib import Path

import pytest

from provision.lab import disks
from provision.lab.disks import Kind
from provision.lab.layout import Lab, lay_out


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    found = lay_out(
        name="lab", subnet="10.77.0.0/24", count=1, disk_bytes=1 << 20, base=tmp_path, root=tmp_path
    )
    found.nodes[0].folder.mkdir(parents=True)
    found.nodes[0].disk.write_bytes(b"mine" + bytes((1 << 20) - 4))
    return found


def test_a_node_has_its_own_disk_unless_said_otherwise(lab: Lab) -> None:
    assert disks.of(lab.nodes[0].folder) == [lab.nodes[0].disk]


def test_disks_come_in_the_order_that_was_said(lab: Lab) -> None:
    disks.choose(lab, lab.nodes[0], [Kind.blank, Kind.own, Kind.copy])

    blank, own, copy = disks.of(lab.nodes[0].folder)

    assert own == lab.nodes[0].disk
    assert blank.read_bytes() == bytes(1 << 20)
    assert copy.read_bytes() == own.read_bytes()


def test_a_node_can_have_none(lab: Lab) -> None:
    disks.choose(lab, lab.nodes[0], [])

    assert disks.of(lab.nodes[0].folder) == []


def test_its_own_disk_grows_and_keeps_what_is_on_it(lab: Lab) -> None:
    disks.choose(lab, lab.nodes[0], [Kind.own], own_bytes=3 << 20)

    assert lab.nodes[0].disk.stat().st_size == 3 << 20
    assert lab.nodes[0].disk.read_bytes()[:4] == b"mine"


def test_a_disk_made_from_an_image_is_never_smaller_than_it(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(b"x" * 100)

    disks.make(tmp_path / "small", size=10, content=tmp_path / "image")
    disks.make(tmp_path / "large", size=200, content=tmp_path / "image")

    assert (tmp_path / "small").read_bytes() == b"x" * 100
    assert (tmp_path / "large").read_bytes() == b"x" * 100 + bytes(100)


def test_a_clone_has_the_same_content_and_holes_stay_holes(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    with source.open("wb") as file:
        file.write(b"mine")
        file.truncate(64 << 20)

    disks.clone(source, target)

    assert target.read_bytes() == source.read_bytes()
    assert target.stat().st_blocks * 512 < 1 << 20
