"""chrony's configuration as the role renders it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import RecordRefusal

ROLE = Path(__file__).parents[3] / "playbooks" / "roles" / "time_sync"
NODES = [{"name": f"te{number}", "address": f"10.0.0.{number}"} for number in (1, 2, 3)]


def configuration(folder: Path, node: str, **site: Any) -> list[str]:
    """The lines of chrony.conf on a node that may set its clock."""
    values = {
        "cluster_nodes": NODES,
        "time_sync_may_set_clock": True,
        "time_sync_pools": [],
        "time_sync_servers": [],
        **site,
    }
    (folder / "show.yml").write_text(
        json.dumps(
            [
                {
                    "hosts": node,
                    "gather_facts": False,
                    "vars_files": [str(ROLE / "vars" / "main.yml")],
                    "tasks": [{"debug": {"msg": "{{ time_sync_files[0].content }}"}}],
                }
            ]
        )
    )
    (folder / "hosts").write_text("[time_sync]\nte1\nte2\nte3\n")
    words = ["ansible-playbook", "-i", "hosts", "-c", "local", "show.yml", "-e", json.dumps(values)]
    finished = subprocess.run(
        [Path(sys.executable).with_name(words[0]), *words[1:]],
        cwd=folder,
        env={**os.environ, "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.json", "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    task = json.loads(finished.stdout)["plays"][0]["tasks"][0]
    text: str = task["hosts"][node]["msg"]
    return text.splitlines()


@pytest.mark.attack("network")
def test_the_clock_that_leads_answers_the_other_nodes_and_nobody_else(
    tmp_path: Path, record_refusal: RecordRefusal
) -> None:
    lines = configuration(tmp_path, "te1")

    allowed = [line for line in lines if line.startswith("allow")]
    record_refusal(f"chrony.conf: {'; '.join(allowed)}")
    assert allowed == ["allow 10.0.0.2", "allow 10.0.0.3"]


@pytest.mark.parametrize(("node", "pools"), [("te2", []), ("te1", ["pool.example.org"])])
def test_a_clock_that_follows_answers_nobody(tmp_path: Path, node: str, pools: list[str]) -> None:
    lines = configuration(tmp_path, node, time_sync_pools=pools)

    assert [line for line in lines if line.startswith("allow")] == []
