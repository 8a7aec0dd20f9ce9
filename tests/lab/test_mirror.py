"""The mirror as `provision lab mirror` makes it: warm, with real addresses, with some that do not answer."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from provision.commands.folders import user_cache
from provision.edges.fetch import sha256_of
from provision.errors import CommandFailed
from provision.lab.mirror import build
from provision.lab.mirror.installers import installer_in
from provision.lab.mirror.parts import Kind, Workshop
from tests.lab.conftest import ENVIRONMENT, MIRROR, ROOT, provision

Build = Callable[..., build.Mirror]


@pytest.fixture(scope="module")
def mirror(lab_machine: None) -> Path:
    provision(*MIRROR, timeout_seconds=1200)
    return user_cache() / "mirror"


@pytest.fixture
def build_copy(mirror: Path, tmp_path: Path) -> Build:
    """Builds a copy of the mirror (its files are links) with other addresses."""
    root = tmp_path / "mirror"
    subprocess.run(["cp", "-al", mirror, root], check=True)

    def run(**addresses: str) -> build.Mirror:
        workshop = Workshop(root=root, environment=os.environ, report=lambda text: None)
        names = ["curl"]  # fewer than the mirror holds: apt must have what it needs already
        wanted = build.Wanted(
            environments=ROOT / "envs",
            names=[ENVIRONMENT],
            debian_packages=names,
            newer_than=0.0,
            **addresses,
        )
        return build.build(workshop, wanted)

    return run


def test_a_warm_mirror_takes_a_moment_and_check_says_that_all_is_there(mirror: Path) -> None:
    started = time.monotonic()
    again = json.loads(provision(*MIRROR, "--json").stdout)
    seconds = time.monotonic() - started

    assert again == json.loads((mirror / "current" / "mirror.json").read_text())
    assert set(json.loads(provision(*MIRROR, "--check", "--json").stdout).values()) == {False}
    assert seconds < 20


def test_the_repository_is_signed_and_the_signature_covers_the_index(mirror: Path, tmp_path: Path) -> None:
    apt = mirror / "current" / "apt"
    keyring = tmp_path / "key.gpg"
    subprocess.run(["gpg", "--dearmor", "--output", keyring, apt / "key.asc"], check=True)

    subprocess.run(["gpgv", "--keyring", keyring, apt / "InRelease"], check=True)

    assert f"{sha256_of(apt / 'Packages')} " in (apt / "InRelease").read_text()


def test_the_real_ones_are_used_where_they_answer(mirror: Path, build_copy: Build) -> None:
    current = mirror / "current"
    installer = installer_in(current / "miniconda")

    made = build_copy(
        miniconda=installer.as_uri(),
        miniconda_sha256=sha256_of(installer),
        channel=(current.resolve() / "conda").as_uri(),
    )

    kinds = {part.name: part.kind for part in made.parts}
    # Those that the mirror has stay, such as one that a demo asked for.
    wheels = {f"wheels-{name}" for name in json.loads((current / "mirror.json").read_text())["environments"]}
    assert made.folder is not None
    assert f"wheels-{ENVIRONMENT}" in wheels
    assert kinds == dict.fromkeys({"apt", "miniconda", "environments", *wheels}, Kind.REAL)
    held = {path.name.split("-")[0] for path in (made.folder / "conda").glob("*/*.conda")}
    assert held == {"python", "pip"}


def test_an_installer_with_another_sha256_ends_the_build_and_the_current_mirror_stays(
    mirror: Path, build_copy: Build, tmp_path: Path
) -> None:
    before = (tmp_path / "mirror" / "current").readlink()

    with pytest.raises(CommandFailed, match="it has sha256"):
        build_copy(
            miniconda=installer_in(mirror / "current" / "miniconda").as_uri(), miniconda_sha256="0" * 64
        )

    assert (tmp_path / "mirror" / "current").readlink() == before


def test_stand_ins_take_the_place_of_addresses_that_do_not_answer(build_copy: Build, tmp_path: Path) -> None:
    nowhere = (tmp_path / "nowhere").as_uri()

    made = build_copy(miniconda=f"{nowhere}/Miniconda3-x.sh", channel=nowhere)

    kinds = {part.name: part.kind for part in made.parts}
    assert kinds["standin"] is kinds["environments"] is Kind.STAND_IN
