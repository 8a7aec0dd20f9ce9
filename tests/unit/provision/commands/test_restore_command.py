"""`provision restore` before any machine calls: what is missing is named, and user data is written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.provision.join_site import ADDRESSES, new_key

ROOT = Path(__file__).parents[4]


def restore(site: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "provision.cli", "restore", "-i", str(site), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    (tmp_path / "00-groups.yml").symlink_to(ROOT / "inventory" / "groups.yml")
    lines = [f"    {name}: {{ansible_host: {address}}}" for name, address in ADDRESSES.items()]
    (tmp_path / "hosts.yml").write_text("\n".join(["---", "cluster:", "  hosts:", *lines, ""]))
    return tmp_path


def test_user_data_comes_first_and_nobody_waits_for_a_machine_that_has_nothing_to_show(
    inventory: Path,
) -> None:
    without_a_key = restore(inventory)
    (inventory / "secrets").mkdir()
    new_key(inventory / "secrets" / "join_key")
    without_tokens = restore(inventory, "te3")
    written = restore(inventory, "te3", "--user-data", str(inventory / "told"))

    assert without_a_key.returncode == without_tokens.returncode == 2
    assert "there is no" in without_a_key.stderr
    assert "no token that counts was made" in without_tokens.stderr
    assert written.returncode == 0, written.stderr
    assert json.loads((inventory / "told/te3.json").read_text())["controller"] == "127.0.0.1:8765"
