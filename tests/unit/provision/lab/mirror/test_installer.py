"""The installer's shell part, with a payload whose interpreter is a few lines of shell.

What the real payload installs is tested on a node (tests/lab/test_mirror_installer.py).
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from provision.bundle.conda_archive import CondaIndex, describe, pack
from provision.lab.mirror.standin.build import write_installer
from provision.lab.mirror.standin.tree import PYTHON, Tree

# Stands for the interpreter: makes the conda that the installer looks for at the end.
INTERPRETER = """\
#!/bin/sh
while [ "$1" != --prefix ]; do shift; done
[ -e "$2/../refuse" ] && exit 7
mkdir -p "$2/bin"
printf '#!/bin/sh\\necho conda 24.7.1\\n' >"$2/bin/conda"
chmod +x "$2/bin/conda"
"""
USAGE = "usage: sh Miniconda3-test.sh [-b] [-p PREFIX] [-u] [-f] [-h]"


@pytest.fixture
def installer(tmp_path: Path) -> Path:
    index = CondaIndex(name="python", version="3.11.7", depends=(), license="PSF-2.0")
    folder = tmp_path / "trees" / index.dist
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / PYTHON).write_text(INTERPRETER)
    (folder / "bin" / PYTHON).chmod(0o755)
    describe(folder, index)
    path = tmp_path / "Miniconda3-test.sh"
    package = pack(folder, index, tmp_path)
    write_installer([Tree(folder=folder, index=index)], {"python": package}, path)
    return path


def run(installer: Path, *words: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "HOME": str(installer.parent / "home")}
    return subprocess.run(
        ["sh", installer, *words], input=stdin, capture_output=True, text=True, check=False, env=environment
    )


@pytest.mark.parametrize("options", [("-b", "-p"), ("-b", "-u", "-p"), ("-bfp",)])
def test_it_installs_into_the_prefix(installer: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    finished = run(installer, *options, tmp_path / "conda")

    assert finished.returncode == 0, finished.stderr
    assert f"Installed conda 24.7.1 in {tmp_path}/conda." in finished.stdout
    assert (tmp_path / "conda" / "pkgs" / "explicit.txt").read_text().startswith("@EXPLICIT\n")


def test_without_b_it_asks_for_the_prefix(installer: Path, tmp_path: Path) -> None:
    finished = run(installer, stdin=f"{tmp_path}/asked\n")

    assert (finished.returncode, (tmp_path / "asked" / "bin" / "conda").exists()) == (0, True)


def test_h_prints_the_usage_and_ends_with_2(installer: Path) -> None:
    finished = run(installer, "-h")

    assert (finished.returncode, finished.stdout.splitlines()[0]) == (2, USAGE)


@pytest.mark.parametrize("words", [("-x",), ("-b", "more"), ("-p",)])
def test_other_options_are_refused_with_the_usage(installer: Path, words: tuple[str, ...]) -> None:
    finished = run(installer, *words)

    assert (finished.returncode, USAGE in finished.stderr) == (1, True)


def test_a_prefix_that_exists_is_refused_without_u(installer: Path, tmp_path: Path) -> None:
    (tmp_path / "conda").mkdir()

    finished = run(installer, "-b", "-p", tmp_path / "conda")

    assert finished.returncode == 1
    assert finished.stderr == f"error: {tmp_path}/conda exists; -u updates the installation that is there\n"
    assert list((tmp_path / "conda").iterdir()) == []


def test_a_prefix_with_a_blank_is_refused(installer: Path, tmp_path: Path) -> None:
    assert "white space" in run(installer, "-b", "-p", tmp_path / "my conda").stderr


def test_one_flipped_byte_of_the_payload_is_refused_and_nothing_is_installed(
    installer: Path, tmp_path: Path
) -> None:
    content = bytearray(installer.read_bytes())
    content[-100] ^= 1
    installer.write_bytes(content)

    finished = run(installer, "-b", "-p", tmp_path / "conda")

    assert (finished.returncode, (tmp_path / "conda").exists()) == (1, False)
    assert "this installer is damaged: its payload has sha256" in finished.stderr


def test_an_installation_that_fails_leaves_nothing(installer: Path, tmp_path: Path) -> None:
    (tmp_path / "refuse").touch()

    finished = run(installer, "-b", "-p", tmp_path / "conda")

    assert (finished.returncode, (tmp_path / "conda").exists()) == (7, False)
    assert "is removed" in finished.stderr


def test_an_update_that_fails_leaves_what_was_there(installer: Path, tmp_path: Path) -> None:
    assert run(installer, "-b", "-p", tmp_path / "conda").returncode == 0
    (tmp_path / "refuse").touch()

    finished = run(installer, "-b", "-u", "-p", tmp_path / "conda")

    assert (finished.returncode, (tmp_path / "conda" / "bin" / "conda").exists()) == (7, True)
