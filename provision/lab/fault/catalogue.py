"""All faults by name."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches

from provision.errors import BadInput
from provision.lab.fault import cables, files, machine, packets
from provision.lab.fault.model import Fault

CATALOGUE: Mapping[str, Fault] = {
    fault.name: fault for fault in (*cables.FAULTS, *packets.FAULTS, *files.FAULTS, *machine.FAULTS)
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
        found="the catalogue has no such fault",
        fix=f"Did you mean {close[0]}?" if close else "See `provision lab fault list`.",
    )
