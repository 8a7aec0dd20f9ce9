"""Whose processors are held at a low clock, and whose only seem to be."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from runtime.smoke.host.cpu_governor import Governors, look
from runtime.smoke.host.registry import Nodes, evidence, judge, not_applicable, probes
from runtime.untrusted.conform import conform
from tests.unit.runtime.smoke.host.cluster import NAMES, healthy, nodes

Driven = tuple[str, dict[str, int]]
ACPI: Driven = ("acpi-cpufreq", {"performance": 64})
INTEL: Driven = ("intel_pstate", {"powersave": 64})
AMD: Driven = ("amd-pstate-epp", {"powersave": 128})
EARLY_AMD: Driven = ("amd_pstate_epp", {"powersave": 128})
NONE: Driven = ("", {})


def scaled(*driven: Driven) -> Nodes:
    answers = [Governors(driver=driver, governors=governors) for driver, governors in driven]
    return nodes(
        {
            host: replace(healthy(host), probed={"host.cpu-governor": answer})
            for host, answer in zip(NAMES, answers, strict=False)
        }
    )


@pytest.mark.parametrize(
    ("te2", "others", "words"),
    [
        (
            ("acpi-cpufreq", {"powersave": 64}),
            ACPI,
            "64 of 64 clocks are held at their lowest by the governor powersave of acpi-cpufreq",
        ),
        (("acpi-cpufreq", {"performance": 63, "powersave": 1}), ACPI, "1 of 64 clocks are held"),
        (("intel_cpufreq", {"powersave": 64}), INTEL, "64 of 64 clocks are held"),
        (("amd-pstate", {"powersave": 128}), AMD, "128 of 128 clocks are held"),
        (
            ("acpi-cpufreq", {"schedutil": 64}),
            ACPI,
            "under acpi-cpufreq has the governor schedutil, against performance on te1, te3",
        ),
        (
            ("acpi-cpufreq", {"ondemand": 2, "performance": 62}),
            ACPI,
            "has the governor ondemand, performance, against performance on te1, te3",
        ),
        (("intel_pstate", {"performance": 64}), INTEL, "has the governor performance, against powersave"),
    ],
)
def test_the_node_whose_clocks_are_low_or_unlike_is_named(te2: Driven, others: Driven, words: str) -> None:
    (said,) = judge(scaled(others, te2, others))

    assert (said.check, said.hosts) == ("cpu governor", ("te2",))
    assert words in said.found
    assert "cpupower frequency-set -g performance" in said.fix


@pytest.mark.parametrize(
    "driven",
    [
        (ACPI, ACPI, ACPI),
        (INTEL, INTEL),
        (AMD, AMD, AMD),
        (EARLY_AMD, EARLY_AMD),
        # Unlike by their hardware: each as its driver begins.
        (INTEL, AMD, ("acpi-cpufreq", {"schedutil": 64})),
        # A virtual machine among others.
        (ACPI, NONE, ACPI),
    ],
)
def test_what_drivers_begin_with_and_where_nothing_is_scaled_accuses_nobody(
    driven: tuple[Driven, ...],
) -> None:
    asked = scaled(*driven)

    assert judge(asked) == ()
    assert driven[0][0] in evidence(asked)["host.cpu-governor"]
    assert "host.cpu-governor" not in not_applicable(asked)


def test_where_no_kernel_scales_clocks_it_is_skipped() -> None:
    asked = scaled(NONE, NONE)

    assert judge(asked) == ()
    assert "virtual machines" in not_applicable(asked)["host.cpu-governor"]


def test_the_kernels_files_are_read_but_for_those_of_processors_that_are_off(tmp_path: Path) -> None:
    for number, governor in enumerate(("performance", "performance", "powersave")):
        policy = tmp_path / f"policy{number}"
        policy.mkdir()
        (policy / "scaling_governor").write_text(f"{governor}\n")
        (policy / "scaling_driver").write_text("acpi-cpufreq\n")
    # The kernel refuses to read it (EBUSY); a folder is refused as well.
    (tmp_path / "policy3" / "scaling_governor").mkdir(parents=True)

    seen = look(tmp_path)
    assert seen == Governors(driver="acpi-cpufreq", governors={"performance": 2, "powersave": 1})
    assert conform(Governors, json.loads(json.dumps(asdict(seen)))) == seen
    assert look(tmp_path / "none") == Governors(driver="", governors={})


def test_this_machine_says_what_it_has() -> None:
    seen = probes()["host.cpu-governor"]()

    assert bool(seen.driver) == bool(seen.governors)
