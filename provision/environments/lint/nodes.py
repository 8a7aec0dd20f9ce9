"""What the nodes of a site have, as far as its inventory says. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from provision.environments.lint.entries import Floors, numbers
from provision.errors import BadInput

VARIABLES = ("nvidia_driver_version", "cluster_architecture")


def floors_of(
    variables: Mapping[str, Mapping[str, Any]], *, glibc: str, driver: str, compute_capability: str
) -> Floors:
    """The least of what nodes have; what was named on the command line goes before the inventory.

    Raises:
        BadInput: a number is none.
    """
    drivers = [numbers(str(one.get("nvidia_driver_version") or "")) for one in variables.values()]
    machines = {str(one.get("cluster_architecture") or "") for one in variables.values()} - {""}
    return Floors(
        glibc=_number("--glibc", glibc),
        driver=_number("--driver", driver) or min((one for one in drivers if one), default=None),
        compute_capability=_number("--compute-capability", compute_capability),
        architecture=machines.pop() if len(machines) == 1 else "",
    )


def _number(option: str, text: str) -> tuple[int, ...] | None:
    if not text:
        return None
    if not re.fullmatch(r"\d{1,4}(\.\d{1,6}){0,3}", text):
        raise BadInput(f"read {option}", found=f"{text!r} is no version", fix=f"For example {option} 2.28")
    return numbers(text)
