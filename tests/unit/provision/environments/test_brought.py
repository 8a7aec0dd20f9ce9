"""An environment out of what people have: what became a wheel, what was left, nothing overwritten."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from provision.environments.brought import Brought, read_brought, specifiers_of
from provision.environments.made import files_of, write_environment
from provision.errors import BadInput

ENVIRONMENTS = Path(__file__).parents[4] / "envs"
YML = """\
channels: [pytorch, conda-forge]
dependencies:
  - python=3.11
  - pytorch::pytorch=2.3
  - pytorch-cuda=12.1
  - numpy>=1.26,<3
  - py-opencv
  - pandas=2.2.0=py311_0
  - madeup
  - ffmpeg
  - pip:
    - rich
    - -e .
    - git+https://me:hunter2@git.example/x.git
    - tomli ; python_version < "3.11"
    - --extra-index-url https://me:hunter2@index.example/simple
    - -r more.txt
"""


def brought(folder: Path) -> Brought:
    (folder / "environment.yml").write_text(YML)
    (folder / "more.txt").write_text("einops[x]==0.8  # so\n")
    return read_brought(folder / "environment.yml", has_wheel=lambda name: name != "madeup")


def test_names_and_versions_become_those_of_wheels_and_the_rest_is_listed(tmp_path: Path) -> None:
    found = brought(tmp_path)

    assert found.wheels == (
        "einops[x]==0.8",
        "numpy>=1.26,<3",
        "opencv-python-headless",
        "rich",
        'tomli ; python_version < "3.11"',
    )
    left = " ".join(line for line, _ in found.left)
    assert all(
        word in left for word in ("pytorch=2.3", "pytorch-cuda", "=py311_0", "madeup", "ffmpeg", "-e .")
    )
    assert "hunter2" not in left


@pytest.mark.parametrize(
    ("conda", "pip"),
    [
        ("", ""),
        ("=3.11", "==3.11.*"),
        ("3.11.*", "==3.11.*"),
        ("==1.2", "==1.2"),
        (">=1, <2", ">=1,<2"),
        ("*", ""),
        ("1.0|2.0", None),
        ("=1.0=py_0", None),
    ],
)
def test_a_version_of_condas_in_pips_words(conda: str, pip: str | None) -> None:
    assert specifiers_of(conda) == pip


def test_the_folder_has_the_kinds_of_the_environment_that_is_there_and_is_never_overwritten(
    tmp_path: Path,
) -> None:
    environments = tmp_path / "envs"
    shutil.copytree(ENVIRONMENTS, environments)
    found = brought(tmp_path)

    files = files_of("mine", found, environments=environments, source="environment.yml")
    write_environment(environments / "mine", files)

    kinds = {path.name for path in (ENVIRONMENTS / "llm").glob("wheels-*.in")}
    assert {path.name for path in (environments / "mine").iterdir()} == {
        *kinds,
        "environment.yml",
        "wheels.in",
        "checks.yml",
    }
    assert all("-r wheels.in\n" in files[kind] and "\n-r ../torch/" in files[kind] for kind in kinds)
    with pytest.raises(BadInput, match="exists"):
        files_of("mine", found, environments=environments, source="environment.yml")
    with pytest.raises(BadInput, match="no name"):
        files_of("../mine", found, environments=environments, source="environment.yml")
    with pytest.raises(BadInput, match="conda calls its own root so"):
        files_of("base", found, environments=environments, source="environment.yml")
    assert not [path for path in environments.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("text", ["a: &a [1]\nb: *a\n", "dependencies: 3\n", "- " * 1000, "\x00"])
def test_what_is_no_environment_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "environment.yml").write_text(text)

    with pytest.raises(BadInput):
        read_brought(tmp_path / "environment.yml", has_wheel=lambda _: None)


def test_requirements_that_include_each_other_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("-r a.txt\n")

    with pytest.raises(BadInput, match="include each other"):
        read_brought(tmp_path / "a.txt", has_wheel=lambda _: None)
