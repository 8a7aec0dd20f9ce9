"""Whether a node's NVIDIA driver can run the environment's CUDA."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from provision.printable import printable

_NVIDIA = "0x10de"
_DISPLAY_CLASS = "0x03"
_VERSION = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9}){0,3}")
_CAPABILITY = re.compile(r"[0-9]{1,2}\.[0-9]")
_NOT_OF_A_NAME = re.compile(r"[^A-Za-z0-9 ()/.+_-]")
_SAID, _NAME = 200, 60
# What nvidia-smi says before 510, which does not know compute_cap; and its status then.
_UNKNOWN_FIELD, _UNKNOWN_FIELD_RC = "is not a valid field to query", 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A card as its driver shows it; `capability` (8.6) is "" where that does not say it."""

    name: str
    capability: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuVerdict:
    """What was found; `problem` is "" where the node may run jobs, and `gpus` is 0 where it has none."""

    gpus: int
    found: str
    problem: str = ""
    driver: str = ""
    cards: tuple[Card, ...] = ()


def gpus_on_bus(files: Mapping[str, str]) -> list[str]:
    """PCI addresses of NVIDIA GPUs, from the texts of /sys/bus/pci/devices/*/{vendor,class}."""
    return sorted(
        path.split("/")[-2]
        for path, text in files.items()
        if path.endswith("/vendor")
        and text.strip() == _NVIDIA
        and files.get(path.removesuffix("vendor") + "class", "").startswith(_DISPLAY_CLASS)
    )


def lacks_peer_access(models: Iterable[str]) -> bool:
    """Whether one of these cards is a GeForce of the 40 series, where NCCL hangs on peer access."""
    return any("GeForce RTX 40" in model for model in models)


def judge(
    files: Mapping[str, str], *, smi_rc: int, smi_output: str, cuda: str, minimum_drivers: Mapping[str, str]
) -> GpuVerdict:
    """Decides from the bus, the modules and `nvidia-smi --query-gpu=driver_version,compute_cap,name`.

    Args:
        files: texts by path; /sys/module/nouveau/refcnt is there when nouveau is loaded.
        cuda: the environment's CUDA as "12.6"; "" asks for a working driver only.
        minimum_drivers: the oldest driver by CUDA version (NVIDIA's minor version compatibility).
    """
    on_bus = gpus_on_bus(files)
    if not on_bus:
        return GpuVerdict(gpus=0, found="no NVIDIA GPU on the PCI bus")
    found = f"{len(on_bus)} NVIDIA GPU on the PCI bus"
    if smi_rc == _UNKNOWN_FIELD_RC and _UNKNOWN_FIELD in smi_output:
        loaded = files.get("/sys/module/nvidia/version", "")
        rows = [(loaded, Card(name="", capability="")) for _ in on_bus]
    elif smi_rc != 0:
        return GpuVerdict(gpus=len(on_bus), found=found, problem=_why_no_driver(files, smi_rc, smi_output))
    else:
        rows = shown(smi_output)
    drivers = {version.strip() for version, _ in rows}
    if not drivers or None in map(version_of, drivers):
        return GpuVerdict(gpus=len(on_bus), found=found, problem=_names_no_driver(smi_output))
    driver, cards = min(drivers, key=_by_number), tuple(card for _, card in rows)
    names = ", ".join(sorted({card.name for card in cards})) or "a card"
    found = f"{len(rows)} x {names}, driver {driver}"
    problem = _too_old(driver, cuda, minimum_drivers)
    if len(rows) != len(on_bus):
        problem = (
            f"the PCI bus has {len(on_bus)} GPUs, the driver shows {len(rows)}; see dmesg for NVRM lines"
        )
    return GpuVerdict(gpus=len(on_bus), found=found, problem=problem, driver=driver, cards=cards)


def shown(smi_output: str) -> list[tuple[str, Card]]:
    """The driver and the card of each line of `nvidia-smi --query-gpu=driver_version,compute_cap,name`."""
    return [_row(line) for line in smi_output.splitlines() if line.strip()]


def _row(line: str) -> tuple[str, Card]:
    driver, capability, name = ([part.strip() for part in line.split(",", 2)] + ["", ""])[:3]
    known = capability if _CAPABILITY.fullmatch(capability) else ""
    return driver, Card(name=_NOT_OF_A_NAME.sub("?", name)[:_NAME], capability=known)


def _why_no_driver(files: Mapping[str, str], smi_rc: int, smi_output: str) -> str:
    if any(path.startswith("/sys/module/nouveau/") for path in files):
        return "the nouveau driver holds the GPU; blacklist nouveau, install NVIDIA's driver and reboot"
    if smi_rc == 127:
        return "there is no nvidia-smi; install NVIDIA's driver"
    if "version mismatch" in smi_output:
        return "the loaded driver and its library differ (an upgrade without a reboot); reboot the node"
    return f"nvidia-smi ends with {smi_rc}: {_printed(smi_output)}"


def _names_no_driver(smi_output: str) -> str:
    fix = "look at `dmesg | grep -i nvrm` and `modinfo nvidia` there, and reboot the node"
    return f"nvidia-smi ends with 0 and names no driver (it says: {_printed(smi_output)}); {fix}"


def _printed(smi_output: str) -> str:
    return " ".join(printable(smi_output).split())[:_SAID] or "nothing"


def _too_old(driver: str, cuda: str, minimum_drivers: Mapping[str, str]) -> str:
    if not cuda:
        return ""
    if cuda not in minimum_drivers:
        known = ", ".join(minimum_drivers)
        return f"nvidia_gpu_minimum_drivers has no CUDA {cuda} (it has {known})"
    least = minimum_drivers[cuda]
    if version_of(least) is None:
        return (
            f"nvidia_gpu_minimum_drivers has {least!r} for CUDA {cuda}, which is no version; write it as 580"
        )
    if _by_number(driver) < _by_number(least):
        return f"driver {driver} is too old for CUDA {cuda}, which needs {least} or newer"
    return ""


def version_of(text: str) -> tuple[int, ...] | None:
    """A driver's version as numbers; None for `[N/A]`, nothing and everything else that is none."""
    match = _VERSION.fullmatch(text.strip())
    return tuple(int(part) for part in match[0].split(".")) if match else None


def _by_number(version: str) -> tuple[int, ...]:
    return version_of(version) or ()
