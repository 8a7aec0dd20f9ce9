from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import pytest
from typer.testing import CliRunner

from provision.bundle.contents import MANIFEST, File, contents_of, text_of
from provision.cli import app


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    (tmp_path / "bundle" / "apt").mkdir(parents=True)
    (tmp_path / "bundle" / "apt" / "Release").write_bytes(b"release")
    file = File(path="apt/Release", size=7, sha256=sha256(b"release").hexdigest())
    (tmp_path / "bundle" / MANIFEST).write_bytes(text_of(contents_of({"cluster": "te"}, [file])))
    return tmp_path / "bundle"


def verify(*words: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["bundle", "verify", *map(str, words)])
    return result.exit_code, result.stdout


def test_a_whole_bundle_is_0_and_its_digest_is_told(bundle: Path) -> None:
    digest = sha256((bundle / MANIFEST).read_bytes()).hexdigest()

    status, said = verify(bundle, "--json")

    assert status == 0
    assert json.loads(said) == {
        "folder": str(bundle),
        "digest": digest,
        "made_for": {"cluster": "te"},
        "files": 1,
        "bytes": 7,
        "problems": [],
    }
    assert verify(bundle, "--digest", digest)[0] == 0


def test_what_is_wrong_is_1_and_named(bundle: Path) -> None:
    (bundle / "apt" / "Release").write_bytes(b"releasE")
    (bundle / "more").touch()

    status, said = verify(bundle)

    assert status == 1
    assert "apt/Release: its content is another one" in said
    assert "more: a file that the manifest does not name" in said


def test_another_bundle_than_the_one_that_was_told_is_1(bundle: Path) -> None:
    status, said = verify(bundle, "--digest", "0" * 64)

    assert status == 1
    assert "bundle.json: the bundle " in said
