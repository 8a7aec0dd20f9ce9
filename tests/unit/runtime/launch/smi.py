"""Answers of `nvidia-smi -q -x`, by the elements of NVIDIA's nvsmi_device DTD that are read."""

from __future__ import annotations

_REASONS = ("gpu_idle", "sw_power_cap", "hw_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown")
_ECC = ("sram_correctable", "sram_uncorrectable_parity", "sram_uncorrectable_secded", "dram_uncorrectable")


def card(**changes: str) -> str:
    """One healthy card, but for the changes: elements by name; `word` and `process` as below."""
    word = changes.get("word", "event")

    def element(name: str, usual: str) -> str:
        return f"<{name}>{changes.get(name, usual)}</{name}>"

    reasons = "".join(
        f"<clocks_{word}_reason_{name}>{changes.get(name, 'Not Active')}</clocks_{word}_reason_{name}>"
        for name in _REASONS
    )
    process = changes.get("process")
    running = (
        f"<process_info><pid>4711</pid><type>{process}</type><process_name>/env/bin/python</process_name>"
        "<used_memory>70312 MiB</used_memory></process_info>"
        if process
        else ""
    )
    return f"""<gpu id="{changes.get("bus", "00000000:8D:00.0")}">
  {element("product_name", "NVIDIA H100 80GB HBM3")}
  <pci><pci_gpu_link_info><link_widths>
    {element("max_link_width", "16x")}{element("current_link_width", "16x")}
  </link_widths></pci_gpu_link_info></pci>
  <clocks_{word}_reasons>{reasons}</clocks_{word}_reasons>
  <ecc_errors><volatile>{"".join(element(name, "0") for name in _ECC)}</volatile></ecc_errors>
  <remapped_rows>
    {element("remapped_row_pending", "No")}{element("remapped_row_failure", "No")}
  </remapped_rows>
  <temperature>{element("gpu_temp", "34 C")}</temperature>
  <applications_clocks>
    <graphics_clock>{changes.get("applications", "1980 MHz")}</graphics_clock>
  </applications_clocks>
  <processes>{running}</processes>
</gpu>"""


def smi(*cards: str, driver: str = "580.95.05") -> str:
    """The whole answer."""
    return (
        '<?xml version="1.0" ?>\n<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v12.dtd">\n'
        f"<nvidia_smi_log><driver_version>{driver}</driver_version><attached_gpus>{len(cards)}</attached_gpus>"
        f"{''.join(cards)}</nvidia_smi_log>"
    )
