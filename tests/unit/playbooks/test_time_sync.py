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
PLUGINS = {"ANSIBLE_FILTER_PLUGINS": str(ROLE.parents[1] / "filter_plugins")}
NODES = [{"name": f"te{number}", "address": f"10.0.0.{number}"} for number in (1, 2, 3)]


def shown(folder: Path, node: str, words: str, **site: Any) -> Any:
    """What the role's variables give on a node that may set its clock."""
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
                    "vars_files": [
                        str(role / "vars" / "main.yml") for role in (ROLE.with_name("cluster"), ROLE)
                    ],
                    "tasks": [{"debug": {"msg": words}}],
                }
            ]
        )
    )
    (folder / "hosts").write_text("[time_sync]\nte1\nte2\nte3\n")
    program = ["ansible-playbook", "-i", "hosts", "-c", "local", "show.yml", "-e", json.dumps(values)]
    finished = subprocess.run(
        [Path(sys.executable).with_name(program[0]), *program[1:]],
        cwd=folder,
        env={**os.environ, **PLUGINS, "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.json", "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    task = json.loads(finished.stdout)["plays"][0]["tasks"][0]
    return task["hosts"][node]["msg"]


def configuration(folder: Path, node: str, **site: Any) -> list[str]:
    """The lines of chrony.conf."""
    text: str = shown(folder, node, "{{ time_sync_files[0].content }}", **site)
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


FOLLOWS = (
    "A9FEA97B,169.254.169.123,4,1763715000.1,0.000001,0.000001,0.000002,1.5,0.0,0.1,0.0002,0.0001,16.0,Normal"
)
ALONE = ",0.0.0.0,0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,1.0,1.0,0.0,Not synchronised"
DEFAULT = ["pool.ntp.org"]


@pytest.mark.parametrize(
    ("found", "added", "tracking", "site", "keeps"),
    [
        pytest.param("server 169.254.169.123\n", "", FOLLOWS, {}, True, id="a cloud's own source"),
        pytest.param("server 169.254.169.123\n", "", ALONE, {}, False, id="that does not answer"),
        pytest.param("# Clusterwright: see\n", "", FOLLOWS, {}, False, id="ours"),
        pytest.param(
            "pool 2.debian.pool\n", "git\nchrony\n", FOLLOWS, {}, False, id="as site.yml installed it"
        ),
        pytest.param(
            "server a\n", "", FOLLOWS, {"time_sync_servers": ["ntp1"]}, False, id="the site names a server"
        ),
        pytest.param(
            "server a\n", "", FOLLOWS, {"time_sync_pools": ["ntp"]}, False, id="the site names a pool"
        ),
        pytest.param("server a\n", "", FOLLOWS, {"time_sync_pools": []}, False, id="the first clock leads"),
        pytest.param(
            "server a\n", "", FOLLOWS, {"time_sync_keep_working": False}, False, id="not to be kept"
        ),
    ],
)
def test_a_source_of_the_owner_stays_where_it_answers(
    tmp_path: Path, found: str, added: str, tracking: str, site: dict[str, Any], keeps: bool
) -> None:
    attributes = {"mode": "0644", "owner": "root", "group": "root"}
    observed = {
        "files": {
            "/proc/1/status": {"text": "CapBnd:\t000001ffffffffff"},
            "/etc/chrony/chrony.conf": {"text": found, **attributes},
            "/etc/default/chrony": None,
            "/etc/systemd/system/chrony.service.d/clusterwright.conf": None,
            "/var/lib/clusterwright/packages": {"text": added, **attributes},
        },
        "commands": {
            "program": {"rc": 0, "stdout": "", "stderr": ""},
            "tracking": {"rc": 0, "stdout": tracking, "stderr": ""},
            "running": {"rc": 0, "stdout": "active", "stderr": ""},
            "enabled": {"rc": 0, "stdout": "enabled", "stderr": ""},
        },
    }
    values = {
        "time_sync_largest_offset_seconds": 0.1,
        "time_sync_keep_working": True,
        "time_sync_pools": DEFAULT,
        "time_sync_observed": observed,
        **site,
    }

    assert shown(tmp_path, "te2", "{{ [time_sync_keeps, time_sync_settled] }}", **values) == [keeps, keeps]
