"""For which folder a Miniconda was installed, by what conda itself starts."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "playbooks" / "roles" / "miniconda" / "files" / "place_of.sh"


def made_for(prefix: Path) -> str:
    words = ["sh", "-c", SCRIPT.read_text(), "place_of", str(prefix)]
    finished = subprocess.run(words, capture_output=True, text=True, check=True)
    assert finished.stderr == ""
    return finished.stdout.strip()


def installed(prefix: Path, first: str) -> None:
    (prefix / "bin").mkdir(parents=True)
    (prefix / "bin" / "conda").write_text(f"{first}\n# -*- coding: utf-8 -*-\n")


def test_one_that_was_moved_tells_its_old_place(tmp_path: Path) -> None:
    old, new = tmp_path / "data" / "miniconda3", tmp_path / "scratch" / "miniconda3"
    installed(old, f"#!{old}/bin/python")

    assert made_for(old) == ""
    new.parent.mkdir()
    old.rename(new)
    assert made_for(new) == str(old)
    # Mounted at both places, or reached by a link, it starts.
    old.symlink_to(new)
    assert made_for(new) == ""


@pytest.mark.parametrize("first", ["", "#!/bin/sh", "#!", "\N{BULLET}", "#!/usr/bin/env python", "no script"])
def test_what_names_no_place_is_where_it_should_be(tmp_path: Path, first: str) -> None:
    installed(tmp_path / "conda", first)

    assert made_for(tmp_path / "conda") == ""
    assert made_for(tmp_path / "none") == ""
