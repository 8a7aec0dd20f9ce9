"""All faults by name, and those that a lab cannot have."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches

from provision.errors import BadInput
from provision.lab.fault import cables, files, machine, packets
from provision.lab.fault.model import Fault

CATALOGUE: Mapping[str, Fault] = {
    fault.name: fault for fault in (*cables.FAULTS, *packets.FAULTS, *files.FAULTS, *machine.FAULTS)
}
LEFT_OUT: Mapping[str, str] = {
    "clock-skew": "all nodes share this machine's clock, and no namespace has a wall clock of its own "
    "(time_namespaces(7): the monotonic and the boot clock only)",
}


def fault_called(name: str) -> Fault:
    """The fault with this name.

    Raises:
        BadInput: there is none.
    """
    if name in CATALOGUE:
        return CATALOGUE[name]
    close = get_close_matches(name, CATALOGUE, 1)
    raise BadInput(
        f"find the fault {name!r}",
        found=LEFT_OUT.get(name, "the catalogue has no such fault"),
        fix=f"Did you mean {close[0]}?" if close else "See `provision lab fault list`.",
    )
