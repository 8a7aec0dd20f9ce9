"""What a cloud was told of a machine, and a first boot without an end, are seen by what nodes run."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

ROLES = Path(__file__).parents[3] / "playbooks" / "roles"


@pytest.mark.parametrize(
    ("told", "wins"),
    [
        ("manage_etc_hosts: true\n", True),
        ("manage_etc_hosts: 'localhost'\n", True),
        ("manage_etc_hosts:   template # as before\n", True),
        ("preserve_hostname: false\n", True),
        ("manage_etc_hosts: false\npreserve_hostname: true\n", False),
        ("# manage_etc_hosts: true\nruncmd:\n  - echo manage_etc_hosts: true\n", False),
    ],
)
def test_user_data_that_wins_over_our_file_is_found_with_its_line(
    tmp_path: Path, told: str, wins: bool
) -> None:
    """cloud-init's own order: instance data before cloud.cfg.d (cloudinit.helpers.ConfigMerger)."""
    variables = yaml.safe_load((ROLES / "host_names" / "vars" / "main.yml").read_text())
    words = variables["host_names_overrule"]
    data = tmp_path / "cloud-config.txt"
    data.write_text(f"#cloud-config\n{told}")

    found = subprocess.run([*words[:3], data, "/missing"], capture_output=True, text=True, check=False)

    assert found.stdout == (f"{data}:2:{told.splitlines()[0]}\n" if wins else "")
    assert found.stderr == ""


@pytest.mark.parametrize(
    ("program", "has_ended", "answer"),
    [
        ("exit 0", False, "first_boot 0\n"),
        ("sleep 30", False, "first_boot 124\n"),
        ("sleep 30", True, ""),
        (None, False, ""),
    ],
)
def test_a_first_boot_is_waited_for_no_longer_than_that(
    tmp_path: Path, program: str | None, has_ended: bool, answer: str
) -> None:
    variables = yaml.safe_load((ROLES / "node_access" / "vars" / "main.yml").read_text())
    words = variables["node_access_first_boot"].replace("{{ node_access_first_boot_seconds }}", "0.3")
    run, programs = tmp_path / "run", tmp_path / "bin"
    run.mkdir()
    programs.mkdir()
    if program is not None:
        (programs / "cloud-init").write_text(f"#!/bin/sh\n{program}\n")
        (programs / "cloud-init").chmod(0o755)
    if has_ended:
        (run / "result.json").touch()

    finished = subprocess.run(
        ["sh", "-c", words.replace("/run/cloud-init", str(run))],
        env={"PATH": f"{programs}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert finished.stdout == answer
