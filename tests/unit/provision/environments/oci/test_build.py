"""Where an image cannot be made it is said why and what to do, and nothing was begun."""

from __future__ import annotations

from pathlib import Path

import pytest

from provision.environments.oci.build import Image, require, save
from provision.environments.oci.recipe import Wanted
from provision.errors import BadInput, MissingRequirement

WANTED = Wanted(name="llm", kind="cpu", prefix="/p", conda_lock="", wheel_lock="")


def program(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_without_podman_it_is_said_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(MissingRequirement, match="there is no podman on this machine") as refused:
        require(WANTED)

    assert "apt-get install podman" in refused.value.fix


def test_a_podman_that_does_not_work_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "podman", "echo 'Error: cannot find newuidmap' >&2; exit 125")
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(MissingRequirement, match="cannot find newuidmap"):
        require(WANTED)


def test_without_mmdebstrap_an_image_of_somebody_s_is_the_way_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path, "podman", '[ "$1" = info ]')
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(MissingRequirement, match="no mmdebstrap") as refused:
        require(WANTED)

    assert "--base debian:12" in refused.value.fix
    require(Wanted(name="llm", kind="cpu", prefix="/p", conda_lock="", wheel_lock="", base="mine:1"))


def test_an_archive_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    target = tmp_path / "llm.tar"
    target.write_text("theirs")

    with pytest.raises(BadInput, match="it exists"):
        save(Image(tag="t", id="i", bytes=1, digest="d"), target)

    assert target.read_text() == "theirs"
    assert [path.name for path in tmp_path.iterdir()] == ["llm.tar"]
