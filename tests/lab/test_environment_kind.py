"""The kind of the environment, chosen by the cards and drivers of two nodes: stand-ins for both."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.lab.conftest import ENVIRONMENT, STATE, Finished, LabUnderTest, changed, made, playbook
from tests.lab.standin_driver import card

KIND = ("--tags", "node_access,environment_kind,nvidia_gpu")
ANEW = ("-e", json.dumps({"environment_kind_anew": True}))
# As nvidia-smi, of the one card that is on the bus.
SMI = """\
cat > /usr/bin/nvidia-smi <<'END'
#!/bin/sh
case "$*" in *driver_version,compute_cap,name*) printf '%s, 9.0, NVIDIA H100 80GB HBM3\\n' {driver} ;; esac
END
chmod 755 /usr/bin/nvidia-smi
"""
GONE = "systemctl disable --now lab-card; umount /sys/bus/pci/devices; rm /usr/bin/nvidia-smi"


@pytest.fixture(scope="module")
def kinds_lab(lab_machine: None) -> Iterator[LabUnderTest]:
    yield from made("kinds", "10.77.245.0/24", 2)


@pytest.fixture
def site(kinds_lab: LabUnderTest, tmp_path: Path) -> LabUnderTest:
    """te1 with a driver 535 and te2 with 580, and an environment with locks of cuda124 and cuda130."""
    kinds_lab.reset()
    environment = tmp_path / "envs" / ENVIRONMENT
    environment.mkdir(parents=True)
    for kind in ("cpu", "cuda124", "cuda130"):
        (environment / f"wheels-{kind}.lock").touch()
    said = {"nvidia_gpu_enabled": True, "validate_sources": False}
    variables = {**said, "cluster_environments_path": str(environment.parent)}
    (kinds_lab.inventory / "group_vars" / "all" / "own.yml").write_text(json.dumps(variables))
    record_of(kinds_lab).unlink(missing_ok=True)
    for node, driver in (("te1", "535.183.01"), ("te2", "580.95.05")):
        kinds_lab.run(node, card(has_switch=False))
        kinds_lab.run(node, SMI.format(driver=driver))
    return kinds_lab


def record_of(lab: LabUnderTest) -> Path:
    return lab.lab.folder / "secrets" / "environment_kinds.yml"


def recorded(lab: LabUnderTest) -> Any:
    path = record_of(lab)
    return yaml.safe_load(path.read_text())[ENVIRONMENT]["kind"] if path.exists() else None


def said(finished: Finished) -> str:
    return " ".join((finished.stdout + finished.stderr).split())


WHY = (
    f"{ENVIRONMENT} is cuda124 (torch 2.6.0, CUDA 12.4): "
    "te1 has driver 535.183.01, and cuda130 needs 580 or newer"
)


@pytest.mark.long  # the gate asks the same of 50 mixes without nodes (tests/cases/environment_kind)
def test_the_older_driver_decides_and_the_choice_is_kept_until_it_is_asked_for_anew(
    site: LabUnderTest,
) -> None:
    before = site.out_of_all(STATE)
    check = playbook(site, *KIND, "--check")
    after_check = (site.out_of_all(STATE), recorded(site))
    first = playbook(site, *KIND)
    second = playbook(site, *KIND)
    site.run("te1", SMI.format(driver="580.95.05"))
    updated = playbook(site, *KIND)
    kept = recorded(site)
    alone = playbook(site, *KIND, "--limit", "te2")
    anew = playbook(site, *KIND, *ANEW)

    assert after_check == (before, None)
    assert WHY in said(check)
    assert WHY in said(first)
    assert (changed(first), changed(second)) == ({"te1": 1, "te2": 0}, {"te1": 0, "te2": 0})
    assert "Survey cards" not in said(second)
    assert "Survey cards" not in said(updated)
    assert kept == "cuda124"
    assert not any(changed(alone).values())
    assert " is cuda130 (torch 2.13.0, CUDA 13.0): all nodes run it (driver 580.95.05 or newer;" in said(anew)
    assert recorded(site) == "cuda130"


@pytest.mark.long  # as above
def test_a_node_that_cannot_is_named_when_it_is_chosen_and_when_it_comes_later(site: LabUnderTest) -> None:
    site.run("te1", SMI.format(driver="470.182.03"))
    old = playbook(site, *KIND, check=False)
    site.run("te1", GONE)
    bare = playbook(site, *KIND, check=False)
    alone = playbook(site, *KIND, "--limit", "te2", check=False)
    unrecorded = recorded(site)
    record_of(site).parent.mkdir(exist_ok=True)
    record_of(site).write_text(f"{ENVIRONMENT}: {{kind: cuda130, why: te2 alone was there}}\n")
    late_without = playbook(site, *KIND, check=False)
    site.run("te1", card(has_switch=False))
    site.run("te1", SMI.format(driver="535.183.01"))
    late_and_old = playbook(site, *KIND, check=False)

    assert "te1: cannot run cuda124 (torch 2.6.0, CUDA 12.4) as the others: it has driver 470.182.03" in said(
        old
    )
    assert "te1: it has no NVIDIA GPU, and te2 has" in said(bare)
    assert "The kind is chosen for all nodes, and te1 did not answer, or this run leaves it out" in said(
        alone
    )
    assert unrecorded is None
    assert "te1: no NVIDIA GPU on the PCI bus; it has no GPU, and the kind cuda130 was chosen" in said(
        late_without
    )
    too_old = (
        "driver 535.183.01 is too old for CUDA 13.0, which needs 580 or newer. The kind cuda130 was chosen"
    )
    assert too_old in said(late_and_old)
    assert "fatal: [te2]" not in said(late_and_old)
    for run in (old, bare, alone, late_without, late_and_old):
        assert run.returncode != 0
        assert "Traceback" not in said(run)
