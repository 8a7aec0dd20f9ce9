"""What a node's driver says of its GPUs, from `nvidia-smi -q -x` and the kernel's log. Changes nothing.

Elements that a driver or a card does not have count as unknown; names are those of NVIDIA's nvsmi_device DTD.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Annotated
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from runtime.edges.process import complete
from runtime.untrusted.conform import one_of

# A card that has fallen off the bus can keep the tool waiting for ever.
_SMI_SECONDS = 6.0
_LOG_SECONDS = 2.0
# What holds clocks down because something is wrong, not because the card is idle or at its power limit.
_SLOWDOWNS = ("hw_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown", "sw_thermal_slowdown")
_UNCORRECTED = (
    "dram_uncorrectable",
    "sram_uncorrectable",
    "sram_uncorrectable_parity",
    "sram_uncorrectable_secded",
)
_XID = re.compile(r"NVRM: Xid \((?:PCI:)?([0-9a-fA-F:.]+)\): (\d{1,9})\b")
_VERSION = re.compile(r"\d")
_SAID = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One card. `width` and `most_width` in PCIe lanes, 0 unknown; degrees Celsius, None unknown.

    `wanted_mhz` is the application clock that somebody or the default has set, 0 unknown.
    `uncorrected` counts memory errors since the driver was loaded; `remapping` is "", "pending" or "failed";
    `slowed_by` are the reasons; `processes` are "PID NAME" of what computes on it.
    """

    name: str
    bus: str
    uncorrected: int
    remapping: Annotated[str, one_of("", "pending", "failed")]
    slowed_by: tuple[str, ...]
    width: int
    most_width: int
    temperature: int | None
    wanted_mhz: int
    processes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpus:
    """A node's cards. `problem` is what nvidia-smi said instead; `xids` counts each Xid error since the boot.

    `present` is False where there is no nvidia-smi; `xids` is None where the kernel's log may not be read.
    """

    present: bool
    problem: str
    driver: str
    cards: tuple[Gpu, ...]
    xids: dict[int, int] | None


def look() -> Gpus:
    """Asks the driver of this node."""
    asked = complete(["nvidia-smi", "-q", "-x"], timeout_seconds=_SMI_SECONDS)
    if asked.status == 127:
        return Gpus(present=False, problem="", driver="", cards=(), xids=None)
    log = complete(["dmesg"], timeout_seconds=_LOG_SECONDS)
    xids = count_xids(log.out) if log.status == 0 else None
    if asked.status != 0:
        said = " ".join((asked.out + asked.errors).split())[:300]
        return Gpus(present=True, problem=said or f"status {asked.status}", driver="", cards=(), xids=xids)
    try:
        driver, cards = parse(asked.out)
    except ElementTree.ParseError as e:
        return Gpus(present=True, problem=f"its answer is no XML: {e}", driver="", cards=(), xids=xids)
    if not _VERSION.match(driver):
        problem = f"it names no driver's version, but {driver[:_SAID]!r}"
        return Gpus(present=True, problem=problem, driver="", cards=cards, xids=xids)
    return Gpus(present=True, problem="", driver=driver, cards=cards, xids=xids)


def parse(xml: str) -> tuple[str, tuple[Gpu, ...]]:
    """The driver's version and the cards, in nvidia-smi's order.

    Raises:
        ElementTree.ParseError: it is no XML.
    """
    log = ElementTree.fromstring(xml)
    return log.findtext("driver_version", "").strip(), tuple(_gpu(element) for element in log.findall("gpu"))


def count_xids(log: str) -> dict[int, int]:
    """How often each Xid error stands in a kernel's log."""
    return dict(Counter(int(number) for _, number in _XID.findall(log)))


def _gpu(gpu: Element) -> Gpu:
    volatile = "ecc_errors/volatile"
    temperature = _number(gpu, "temperature/gpu_temp")
    return Gpu(
        name=gpu.findtext("product_name", "").strip(),
        bus=gpu.get("id", ""),
        uncorrected=sum(_number(gpu, f"{volatile}/{name}") or 0 for name in _UNCORRECTED),
        remapping=_remapping(gpu),
        slowed_by=_slowed_by(gpu),
        width=_number(gpu, "pci/pci_gpu_link_info/link_widths/current_link_width") or 0,
        most_width=_number(gpu, "pci/pci_gpu_link_info/link_widths/max_link_width") or 0,
        temperature=temperature,
        wanted_mhz=_number(gpu, "applications_clocks/graphics_clock") or 0,
        processes=tuple(
            f"{process.findtext('pid', '').strip()} {process.findtext('process_name', '').strip()}"
            for process in gpu.findall("processes/process_info")
            if "C" in process.findtext("type", "C")
        ),
    )


def _remapping(gpu: Element) -> str:
    if gpu.findtext("remapped_rows/remapped_row_failure", "").strip() == "Yes":
        return "failed"
    return "pending" if gpu.findtext("remapped_rows/remapped_row_pending", "").strip() == "Yes" else ""


def _slowed_by(gpu: Element) -> tuple[str, ...]:
    """Drivers before 535 say `throttle` where later ones say `event`."""
    found = []
    for reason in _SLOWDOWNS:
        states = (
            gpu.findtext(f"clocks_{word}_reasons/clocks_{word}_reason_{reason}", "").strip()
            for word in ("event", "throttle")
        )
        if "Active" in states:
            found.append(reason)
    return tuple(found)


def _number(gpu: Element, path: str) -> int | None:
    """The digits at the beginning: `16x`, `45 C`, `1980 MHz`; None for N/A and for what is not there."""
    match = re.match(r"\s*(\d{1,15})(?!\d)", gpu.findtext(path, ""))
    return int(match[1]) if match else None
