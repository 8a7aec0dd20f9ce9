from __future__ import annotations

from pathlib import Path

import pytest

from provision.errors import BadInput
from provision.lab.layout import Lab, lay_out
from provision.lab.record import load, load_shape, save, save_shape
from provision.lab.shape import Shape


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return lay_out(
        name="lab", subnet="10.77.0.0/24", count=3, disk_bytes=1 << 30, base=Path("/b"), root=tmp_path / "a b"
    )


def test_a_lab_is_read_back_as_it_was_written(lab: Lab) -> None:
    save(lab)

    assert load(lab.folder) == lab


def test_no_lab_is_none(lab: Lab) -> None:
    assert load(lab.folder) is None


def test_a_damaged_record_names_the_way_out(lab: Lab) -> None:
    save(lab)
    lab.record.write_text('{"name": "lab"')

    with pytest.raises(BadInput, match="provision lab down --name lab"):
        load(lab.folder)


def test_limits_of_a_cable_are_kept(lab: Lab) -> None:
    node = lab.nodes[1]
    save_shape(node, Shape(ingress="5mbit"))

    assert load_shape(node) == Shape(ingress="5mbit")
    assert load_shape(lab.nodes[0]) == Shape()
