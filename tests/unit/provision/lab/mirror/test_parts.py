from __future__ import annotations

from pathlib import Path

import pytest

from provision.lab.mirror.parts import Kind, Part, Workshop, key_of, prune, sources_key


def workshop(root: Path, *, check: bool = False) -> Workshop:
    return Workshop(root=root, environment={}, report=lambda text: None, check=check)


def ensure(root: Path, *, key: str = "k", check: bool = False, fails: bool = False) -> Part:
    def make(folder: Path) -> None:
        (folder / "first").write_text("1")
        if fails:
            raise RuntimeError("killed")
        assert (folder / "first").exists()

    return workshop(root, check=check).ensure("part", key, kind=Kind.REAL, make=make)


def test_a_part_is_made_once_for_each_key(tmp_path: Path) -> None:
    first, again, other = ensure(tmp_path), ensure(tmp_path), ensure(tmp_path, key="l")

    assert first.made is not None
    assert again.made is None
    assert other.folder != first.folder


def test_check_makes_nothing(tmp_path: Path) -> None:
    part = ensure(tmp_path, check=True)

    assert part.made == 0.0
    assert list(tmp_path.iterdir()) == []


def test_a_part_that_was_not_finished_is_not_there_and_is_gone_on_with(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        ensure(tmp_path, fails=True)
    assert [path.name for path in (tmp_path / "parts").iterdir()] == ["part-k.partial"]

    ensure(tmp_path)

    assert [path.name for path in (tmp_path / "parts").iterdir()] == ["part-k"]


def test_prune_removes_what_no_mirror_uses(tmp_path: Path) -> None:
    kept, old = ensure(tmp_path), ensure(tmp_path, key="old")
    for name in ("new-mirror", "old-mirror"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mirror.json").write_text("{}")
    (tmp_path / "signing").mkdir()

    prune(tmp_path, {kept.folder, tmp_path / "new-mirror"})

    assert not old.folder.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new-mirror", "parts", "signing"]


def test_a_key_changes_with_a_files_content_or_name_and_not_with_bytecode(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("1")
    before = sources_key(tmp_path)
    (tmp_path / "a.pyc").write_text("bytecode")
    assert sources_key(tmp_path) == before

    (tmp_path / "b.py").write_text("")

    assert sources_key(tmp_path) != before
    assert key_of("a", 1) != key_of("a", 2)
