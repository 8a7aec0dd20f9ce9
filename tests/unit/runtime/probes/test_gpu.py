"""What is read from a driver's answer and from a kernel's log."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from runtime.probes import gpu
from runtime.probes.gpu import Gpu, Gpus, count_xids, look, parse
from runtime.untrusted.conform import conform
from tests.unit.runtime.launch.smi import card, smi

LOG = """
[    9.1] NVRM: loading NVIDIA UNIX x86_64 Kernel Module  580.95.05
[  812.3] NVRM: Xid (PCI:0000:8d:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.
[  813.0] NVRM: Xid (PCI:0000:8d:00): 31, pid=1234, name=python, Ch 00000008
[  814.0] NVRM: Xid (0000:03:00): 31, Channel 00000001
"""


def test_a_healthy_card() -> None:
    driver, (one,) = parse(smi(card()))

    assert driver == "580.95.05"
    assert one == Gpu(
        name="NVIDIA H100 80GB HBM3",
        bus="00000000:8D:00.0",
        uncorrected=0,
        remapping="",
        slowed_by=(),
        width=16,
        most_width=16,
        temperature=34,
        wanted_mhz=1980,
        processes=(),
    )


@pytest.mark.parametrize(
    ("change", "field", "value"),
    [
        ({"dram_uncorrectable": "2", "sram_uncorrectable_secded": "1"}, "uncorrected", 3),
        ({"remapped_row_pending": "Yes"}, "remapping", "pending"),
        ({"remapped_row_pending": "Yes", "remapped_row_failure": "Yes"}, "remapping", "failed"),
        ({"hw_thermal_slowdown": "Active"}, "slowed_by", ("hw_thermal_slowdown",)),
        ({"gpu_idle": "Active", "sw_power_cap": "Active"}, "slowed_by", ()),
        ({"word": "throttle", "hw_slowdown": "Active"}, "slowed_by", ("hw_slowdown",)),
        ({"current_link_width": "8x"}, "width", 8),
        ({"current_link_width": "N/A"}, "width", 0),
        ({"gpu_temp": "N/A"}, "temperature", None),
        ({"applications": "Requested functionality has been deprecated"}, "wanted_mhz", 0),
        ({"gpu_temp": "[N/A]"}, "temperature", None),
        ({"gpu_temp": ""}, "temperature", None),
        ({"dram_uncorrectable": "N/A", "sram_uncorrectable_secded": "[N/A]"}, "uncorrected", 0),
        ({"dram_uncorrectable": "9" * 5000}, "uncorrected", 0),
        ({"process": "C"}, "processes", ("4711 /env/bin/python",)),
        ({"process": "G"}, "processes", ()),
    ],
)
def test_what_a_card_says(change: dict[str, str], field: str, value: object) -> None:
    _, (one,) = parse(smi(card(**change)))

    assert getattr(one, field) == value


def test_each_xid_is_counted() -> None:
    assert count_xids(LOG) == {79: 1, 31: 2}


def tool(folder: Path, name: str, text: str, status: int = 0) -> None:
    """A program that prints the text: what a driver would say."""
    (folder / f"{name}.txt").write_text(text)
    program = folder / name
    program.write_text(f"#!/bin/sh\ncat {folder / name}.txt\nexit {status}\n")
    program.chmod(0o755)


def test_a_node_s_answer_crosses_the_channel_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool(tmp_path, "nvidia-smi", smi(card(process="C"), card(hw_slowdown="Active")))
    tool(tmp_path, "dmesg", LOG)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    seen = look()

    assert (len(seen.cards), seen.xids, seen.problem) == (2, {79: 1, 31: 2}, "")
    assert conform(Gpus, json.loads(json.dumps(asdict(seen)))) == seen


def test_a_driver_that_fails_is_told_with_its_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool(tmp_path, "nvidia-smi", "Failed to initialize NVML: Driver/library version mismatch\n", 18)
    tool(tmp_path, "dmesg", "dmesg: read kernel buffer failed: Operation not permitted\n", 1)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    seen = look()

    assert (seen.present, seen.cards, seen.xids) == (True, (), None)
    assert seen.problem == "Failed to initialize NVML: Driver/library version mismatch"


@pytest.mark.parametrize("version", ["", "[N/A]", "N/A", "Unknown Error"])
def test_status_0_without_a_version_is_no_answer(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool(tmp_path, "nvidia-smi", smi(card()).replace("580.95.05", version))
    tool(tmp_path, "dmesg", f"{LOG}NVRM: Xid (0000:03:00): {'9' * 5000}, forged")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    seen = look()

    assert seen.problem == f"it names no driver's version, but {version!r}"
    assert seen.xids == {79: 1, 31: 2}


@pytest.mark.parametrize(
    "said", ["", "\n", "[N/A]", "No devices were found", "<nvidia_smi_log/>", "<a><gpu/></a>"]
)
def test_status_0_and_another_answer_is_a_problem_in_words(
    said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool(tmp_path, "nvidia-smi", said)
    tool(tmp_path, "dmesg", "")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    seen = look()

    assert seen.present
    assert seen.problem
    assert conform(Gpus, json.loads(json.dumps(asdict(seen)))) == seen


def test_a_driver_that_never_answers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(gpu, "_SMI_SECONDS", 0.2)

    assert look().problem == "nvidia-smi gave no answer in 0.2 s"


def test_a_node_without_a_driver_has_no_cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    assert look() == Gpus(present=False, problem="", driver="", cards=(), xids=None)
