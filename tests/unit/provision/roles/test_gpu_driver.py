"""A driver is judged from the bus, the loaded modules and nvidia-smi."""

from __future__ import annotations

import pytest

from provision.roles.gpu_driver import Card, judge, lacks_peer_access

MINIMUM = {"11.8": "450", "12.6": "525", "13.0": "580"}
GPU = {
    "/sys/bus/pci/devices/0000:01:00.0/vendor": "0x10de\n",
    "/sys/bus/pci/devices/0000:01:00.0/class": "0x030200\n",
}
SECOND = {path.replace("01:", "02:"): text for path, text in GPU.items()}
SOUND = {
    "/sys/bus/pci/devices/0000:01:00.1/vendor": "0x10de\n",
    "/sys/bus/pci/devices/0000:01:00.1/class": "0x040300\n",
}
NOUVEAU = {"/sys/module/nouveau/refcnt": "4\n"}
A10 = "535.104.05, 8.6, NVIDIA A10\n"


@pytest.mark.parametrize(
    ("files", "smi_rc", "smi_output", "cuda", "problem"),
    [
        (GPU, 0, A10, "", ""),
        (GPU, 0, A10, "12.6", ""),
        (GPU | SOUND, 0, A10, "12.6", ""),
        (GPU, 0, A10, "13.0", "driver 535.104.05 is too old for CUDA 13.0, which needs 580 or newer"),
        (GPU, 0, A10, "9.0", "nvidia_gpu_minimum_drivers has no CUDA 9.0 (it has 11.8, 12.6, 13.0)"),
        (GPU, 127, "", "", "there is no nvidia-smi; install NVIDIA's driver"),
        (GPU | NOUVEAU, 127, "", "", "the nouveau driver holds the GPU"),
        (GPU, 18, "Failed to initialize NVML: Driver/library version mismatch", "", "reboot the node"),
        (GPU, 9, "NVIDIA-SMI has failed", "", "nvidia-smi ends with 9: NVIDIA-SMI has failed"),
        (GPU, 0, "", "", "nvidia-smi ends with 0 and names no driver (it says: nothing)"),
        (GPU, 0, " \n\n", "13.0", "names no driver (it says: nothing)"),
        (GPU, 0, "[N/A], 8.6, NVIDIA A10\n", "13.0", "names no driver (it says: [N/A], 8.6, NVIDIA A10)"),
        (GPU, 0, "[N/A], [N/A], [N/A]\n", "", "names no driver (it says: [N/A], [N/A], [N/A])"),
        (GPU, 0, ", , \n", "", "names no driver (it says: , ,)"),
        (GPU, 0, "No devices were found\n", "", "names no driver (it says: No devices were found)"),
        (
            GPU,
            0,
            "Unable to determine the device handle for GPU0: 0000:01:00.0: Unknown Error\n",
            "",
            "names no driver",
        ),
        (GPU, 0, f"{'9' * 5000}, X\n", "13.0", "names no driver"),
        (GPU, 0, "535.104.05\n", "12.6", ""),
        (GPU, 0, "535.104.05, [N/A], [N/A]\n", "12.6", ""),
        (GPU, 0, A10 + A10, "", "the PCI bus has 1 GPUs, the driver shows 2"),
    ],
)
def test_the_problem_is_named(
    files: dict[str, str], smi_rc: int, smi_output: str, cuda: str, problem: str
) -> None:
    verdict = judge(files, smi_rc=smi_rc, smi_output=smi_output, cuda=cuda, minimum_drivers=MINIMUM)

    assert verdict.problem == problem or (problem and problem in verdict.problem)
    assert verdict.gpus >= 1


def test_a_node_without_a_gpu_has_nothing_to_check() -> None:
    verdict = judge(SOUND, smi_rc=127, smi_output="", cuda="13.0", minimum_drivers=MINIMUM)

    assert (verdict.gpus, verdict.problem) == (0, "")


def test_a_least_driver_of_the_site_that_is_no_version_is_named() -> None:
    verdict = judge(GPU, smi_rc=0, smi_output=A10, cuda="12.6", minimum_drivers={"12.6": "R525"})

    assert verdict.problem.startswith("nvidia_gpu_minimum_drivers has 'R525' for CUDA 12.6")


OLD = 'Field "compute_cap" is not a valid field to query.\n\n'


@pytest.mark.parametrize(("loaded", "problem"), [("470.182.03\n", ""), ("", "names no driver")])
def test_a_driver_that_knows_no_compute_capability_is_told_by_its_module(loaded: str, problem: str) -> None:
    files = GPU | {"/sys/module/nvidia/version": loaded}

    verdict = judge(files, smi_rc=2, smi_output=OLD, cuda="11.8", minimum_drivers=MINIMUM)

    assert problem in verdict.problem
    assert bool(verdict.problem) == bool(problem)


def test_what_a_card_is_called_and_computes_as_is_told_without_what_a_terminal_obeys() -> None:
    said = "535.104.05, 8.6, NVIDIA A10, 24 GB\x1b[2J {{ x }}\n535.104.05, 8.60, A10\n"

    verdict = judge(GPU | SECOND, smi_rc=0, smi_output=said, cuda="", minimum_drivers={})

    assert verdict.cards == (
        Card(name="NVIDIA A10? 24 GB??2J ?? x ??", capability="8.6"),
        Card(name="A10", capability=""),
    )
    assert verdict.driver == "535.104.05"


def test_versions_are_compared_as_numbers() -> None:
    verdict = judge(GPU, smi_rc=0, smi_output="1000.1, 8.6, X", cuda="12.6", minimum_drivers=MINIMUM)

    assert verdict.problem == ""


@pytest.mark.parametrize(
    ("models", "lacks"),
    [
        ([], False),
        (["Model: NVIDIA A10"], False),
        (["Model: NVIDIA GeForce RTX 3090", "Model: NVIDIA GeForce RTX 4090"], True),
        (["Model: NVIDIA GeForce RTX 4060 Laptop GPU"], True),
        (["Model: NVIDIA RTX 4000 SFF Ada Generation"], False),
        (["Model: NVIDIA GeForce RTX 5090"], False),
    ],
)
def test_peer_access_is_turned_off_for_geforce_cards_of_the_40_series_only(
    models: list[str], lacks: bool
) -> None:
    assert lacks_peer_access(models) is lacks
