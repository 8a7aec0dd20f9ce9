from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from provision.lab.layout import lay_out
from provision.lab.written_site import render, write

COMMITTED = Path(__file__).parents[4] / "inventory" / "lab"
LAB = lay_out(name="lab", subnet="10.77.0.0/24", count=4, disk_bytes=12 << 30, base=Path("/b"))


@pytest.mark.parametrize("name", render(LAB))
def test_the_committed_inventory_is_the_one_of_the_default_lab(name: str) -> None:
    assert (COMMITTED / name).read_text() == render(LAB)[name]


def test_the_committed_inventory_has_no_other_files() -> None:
    present = {str(path.relative_to(COMMITTED)) for path in COMMITTED.rglob("*") if path.is_file()}

    assert present == {*render(LAB), "00-groups.yml"}


def test_a_node_is_one_line() -> None:
    hosts = yaml.safe_load(render(LAB)["hosts.yml"])

    assert hosts == {
        "cluster": {"hosts": {f"te{i}": {"ansible_host": f"10.77.0.{10 + i}"} for i in range(1, 5)}}
    }
    assert render(LAB)["hosts.yml"].count("te3") == 1


def test_the_host_keys_of_the_nodes_own_disks_are_the_only_ones_accepted() -> None:
    variables: dict[str, Any] = yaml.safe_load(render(LAB)["group_vars/all/lab.yml"])

    assert "StrictHostKeyChecking=yes" in variables["ansible_ssh_common_args"]
    assert f"UserKnownHostsFile={LAB.known_hosts}" in variables["ansible_ssh_common_args"]


def test_a_lab_of_another_release_installs_from_the_mirror_of_that_release() -> None:
    assert "/clusterwright/mirror/current" in render(LAB)["group_vars/all/lab.yml"]
    other = render(replace(LAB, release="trixie"))["group_vars/all/lab.yml"]
    assert "/clusterwright/mirror-trixie/current" in other


def test_a_written_inventory_carries_the_groups_that_all_sites_share(tmp_path: Path) -> None:
    lab = lay_out(
        name="x", subnet="10.77.9.0/24", count=1, disk_bytes=1 << 30, base=Path("/b"), root=tmp_path
    )

    write(lab)
    write(lab)

    assert "cluster:" in (lab.inventory / "00-groups.yml").read_text()
    assert (lab.inventory / "hosts.yml").read_text() == render(lab)["hosts.yml"]
