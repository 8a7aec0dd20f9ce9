"""What a baked node gets back, where somebody changed its disk meanwhile; on trees of a few files."""

from __future__ import annotations

import importlib.util
import tarfile
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[3] / "playbooks" / "roles" / "image_cleanup" / "files" / "live_view.py"


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The program with its places below `tmp_path`, and a file of a home in what it keeps."""
    spec = importlib.util.spec_from_file_location("live_view", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "root" / "etc" / "profile.d").mkdir(parents=True)
    (tmp_path / "kept").write_text("echo theirs\n")
    with tarfile.open(tmp_path / "kept.tar", "w") as archive:
        for name in ("home/ann/.config/wandb/x.sh", "etc/machine-id"):
            archive.add(tmp_path / "kept", arcname=name)
    for name, place in {"ROOT": "root", "KEPT": "kept.tar", "LEFT": "left.tar", "PLACE": "place"}.items():
        monkeypatch.setattr(module, name, str(tmp_path / place), raising=False)
    monkeypatch.setattr(module, "run", lambda *words, check=True: None)
    monkeypatch.setattr(module, "USED", ())
    monkeypatch.setattr(module, "WRITTEN", ())
    return module


@pytest.mark.parametrize("link", [".config", ".config/wandb"])
def test_nothing_is_put_back_through_a_link_of_a_user(link: str, program: ModuleType, tmp_path: Path) -> None:
    place = tmp_path / "root" / "home" / "ann" / link
    place.parent.mkdir(parents=True)
    place.symlink_to("/".join([".."] * len(Path("home/ann", link).parent.parts)) + "/etc/profile.d")
    if link == ".config":
        (tmp_path / "root/etc/profile.d/wandb").mkdir()

    with pytest.raises(SystemExit, match=r"home/ann/\.config/wandb/x\.sh"):
        program.end()

    assert list((tmp_path / "root" / "etc").rglob("*.sh")) == []
    assert (tmp_path / "root" / "etc" / "machine-id").read_text() == "echo theirs\n"
    with tarfile.open(tmp_path / "left.tar") as archive:
        assert "home/ann/.config/wandb/x.sh" in archive.getnames()


def test_what_was_kept_is_put_back(program: ModuleType, tmp_path: Path) -> None:
    program.end()

    assert (tmp_path / "root/home/ann/.config/wandb/x.sh").read_text() == "echo theirs\n"
