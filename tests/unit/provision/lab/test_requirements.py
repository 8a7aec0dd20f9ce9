from __future__ import annotations

import os
from pathlib import Path

import pytest

from provision.errors import MissingRequirement
from provision.lab.requirements import missing_packages, require


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without any program, used by someone who is not root."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    return tmp_path


def test_everything_that_is_missing_is_named_at_once_with_the_way_to_get_it(bare: Path) -> None:
    with pytest.raises(MissingRequirement) as refused:
        require()

    for package in ("mmdebstrap", "systemd-container", "iproute2", "openssh-client"):
        assert f"the package {package}" in refused.value.found
    assert "the rights of root" in refused.value.found
    assert refused.value.fix == "provision lab requirements --install; run it as root (sudo)"


def test_a_package_that_carries_two_missing_programs_is_named_once(bare: Path) -> None:
    assert missing_packages().count("iproute2") == 1


def test_a_program_that_is_there_is_not_asked_for(bare: Path) -> None:
    (bare / "mmdebstrap").write_text("")
    (bare / "mmdebstrap").chmod(0o755)

    assert "mmdebstrap" not in missing_packages()
