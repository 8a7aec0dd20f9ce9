from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path

import pytest

from provision.bundle.contents import MANIFEST, File, contents_of, text_of
from provision.bundle.folder import Bundle, differences, read
from provision.errors import BadInput

FILES = {"apt/Release": b"release", "wheels/llm/a.whl": b"wheel", "miniconda/m.sh": b""}


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    folder = tmp_path / "bundle"
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    files = [File(path=p, size=len(c), sha256=sha256(c).hexdigest()) for p, c in FILES.items()]
    (folder / MANIFEST).write_bytes(text_of(contents_of({"cluster": "te"}, files)))
    return read(folder)


def found(bundle: Bundle, *, full: bool = True) -> dict[str, str]:
    return {one.path: one.what for one in differences(bundle, full=full)}


def test_a_whole_bundle_is_as_its_manifest_says(bundle: Bundle) -> None:
    seen: list[int] = []

    assert differences(bundle, on_bytes=seen.append) == []
    assert sorted(seen) == [0, 5, 7]
    assert bundle.digest == sha256((bundle.folder / MANIFEST).read_bytes()).hexdigest()


def test_what_is_missing_surplus_or_another_one_is_named(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"release")
    (bundle.folder / "apt" / "Release").unlink()
    (bundle.folder / "apt" / "Release").symlink_to(tmp_path / "secret")
    (bundle.folder / "wheels" / "llm" / "a.whl").write_bytes(b"wheeL")
    (bundle.folder / "miniconda" / "m.sh").unlink()
    (bundle.folder / "more").write_text("")
    (bundle.folder / "empty").mkdir()
    os.mkfifo(bundle.folder / "pipe")

    assert found(bundle) == {
        "apt/Release": "it is a link, no file",
        "wheels/llm/a.whl": "its content is another one",
        "miniconda/m.sh": "it is missing",
        "more": "a file that the manifest does not name",
        "empty": "a folder that the manifest does not name",
        "pipe": "something special that the manifest does not name",
    }
    assert "wheels/llm/a.whl" not in found(bundle, full=False)


def test_a_folder_that_is_a_link_is_not_entered(bundle: Bundle, tmp_path: Path) -> None:
    (bundle.folder / "wheels").rename(tmp_path / "elsewhere")
    (bundle.folder / "wheels").symlink_to(tmp_path / "elsewhere")

    assert found(bundle) == {
        "wheels": "a link that the manifest does not name",
        "wheels/llm/a.whl": "it is missing",
    }


def test_a_device_in_a_file_s_place_is_not_opened(bundle: Bundle) -> None:
    (bundle.folder / "miniconda" / "m.sh").unlink()
    os.mkfifo(bundle.folder / "miniconda" / "m.sh")

    assert found(bundle) == {"miniconda/m.sh": "it is something special, no file"}


def test_a_folder_without_a_manifest_or_with_a_link_for_one_is_no_bundle(
    bundle: Bundle, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        read(tmp_path)
    (bundle.folder / MANIFEST).rename(tmp_path / "m")
    (bundle.folder / MANIFEST).symlink_to(tmp_path / "m")
    with pytest.raises(BadInput, match="cannot be read"):
        read(bundle.folder)
