from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from provision.errors import BadInput, Busy
from provision.lab import record, snapshot
from provision.lab.layout import Lab, lay_out
from provision.lab.snapshot import SNAPSHOT_ROOT, Snapshot


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return lay_out(
        name="lab",
        subnet="10.77.9.0/24",
        count=2,
        disk_bytes=1 << 30,
        base=Path("/cache/root"),
        root=tmp_path / "labs",
    )


@pytest.fixture
def root(tmp_path: Path, lab: Lab) -> Path:
    """A folder of snapshots with a complete one, half of one, and one that was being deleted."""
    root = tmp_path / SNAPSHOT_ROOT.name
    snapshot.save(root / "proven", lab, made="2026-01-02T03:04:05+00:00")
    for name in (".lab.partial", ".old.deleted"):
        (root / name).mkdir()
    return root


def test_a_snapshot_holds_the_lab_that_was_frozen(root: Path, lab: Lab) -> None:
    found = snapshot.load("proven", root)

    assert found.lab == lab
    assert found.made == "2026-01-02T03:04:05+00:00"
    assert (root / "proven" / "snapshot.json").stat().st_mode & 0o777 == 0o600


def test_only_complete_snapshots_are_listed_and_a_missing_one_is_answered_with_them(root: Path) -> None:
    assert snapshot.names(root) == ["proven"]
    with pytest.raises(BadInput, match="there are proven"):
        snapshot.load("other", root)


@pytest.mark.parametrize("name", ["", ".lab.partial", "../proven", "-x", "Big", "a b", "x" * 33])
def test_a_name_that_could_be_another_file_is_none(root: Path, name: str) -> None:
    with pytest.raises(BadInput, match="1 to 32"):
        snapshot.load(name, root)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"lab": {"name": "lab"}, "made": ""}'])
def test_a_damaged_record_is_named_and_such_a_snapshot_can_be_removed(
    root: Path, tmp_path: Path, text: str
) -> None:
    (root / "proven" / "snapshot.json").write_text(text)

    with pytest.raises(BadInput, match="provision lab snapshot remove proven"):
        snapshot.load("proven", root)
    snapshot.remove("proven", root, tmp_path / "labs")
    assert snapshot.names(root) == []


def test_a_snapshot_that_a_lab_stands_on_stays(root: Path, tmp_path: Path, lab: Lab) -> None:
    record.save(replace(lab, snapshot="proven"))

    with pytest.raises(BadInput, match="provision lab down --name lab"):
        snapshot.remove("proven", root, tmp_path / "labs")

    assert snapshot.names(root) == ["proven"]
    assert snapshot.users("proven", tmp_path / "labs") == ["lab"]


def test_who_makes_or_uses_a_snapshot_has_it_alone() -> None:
    with snapshot.held("unit-held"), pytest.raises(Busy), snapshot.held("unit-held"):
        pass


def test_layers_are_stacked_the_youngest_first(root: Path, lab: Lab) -> None:
    for index in (0, 2, 10):
        (root / "proven/files/frozen/nodes/te1/layers" / str(index)).mkdir(parents=True)
    restored = replace(lab, snapshot="proven")

    assert [path.name for path in snapshot.layers_of(restored, lab.nodes[0])] == ["10", "2", "0"]
    assert snapshot.layers_of(restored, lab.nodes[1]) == []
    assert snapshot.layers_of(lab, lab.nodes[0]) == []


def test_a_lab_whose_snapshot_has_gone_is_told_what_is_left_to_do(lab: Lab) -> None:
    with pytest.raises(BadInput, match=r"has gone.*provision lab down --name lab"):
        snapshot.of(replace(lab, snapshot="gone"))


def test_a_full_disk_is_named_with_what_is_needed(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"needs 1048576\.0 GiB of the disk"):
        snapshot.require_space(tmp_path, 1 << 50, asked="freeze")


def test_bytes_on_disk_leave_holes_out(root: Path) -> None:
    image = root / "proven" / "files.xfs"
    with image.open("wb") as file:
        file.write(bytes(8192))
        file.truncate(1 << 30)

    found: Snapshot = snapshot.load("proven", root)

    assert 8192 <= found.bytes_on_disk < 1 << 20
