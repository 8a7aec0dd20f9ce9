"""One line of an inventory, of YAML or ini, is edited, and every other byte stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from provision.errors import BadInput
from provision.inventory.formats import edits_of

CASES = yaml.safe_load((Path(__file__).parents[3] / "cases" / "inventory_edit" / "cases.yml").read_text())


def edited(edit: dict[str, Any], before: str) -> str:
    edits = edits_of(before)
    match edit:
        case {"add": name, "address": address}:
            slots, inside = edit.get("slots"), edit.get("cluster_address")
            group = edit.get("group")
            return edits.add(before, name, address=address, slots=slots, cluster_address=inside, group=group)
        case {"replace": name, "address": address}:
            keeps = edit.get("keeps_cluster_address", False)
            return edits.replace(before, name, address=address, keeps_cluster_address=keeps)
    ((what, name),) = edit.items()
    return str(getattr(edits, what)(before, name))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_an_edit_is_this_and_no_more(case: dict[str, Any]) -> None:
    if "refused" in case:
        with pytest.raises(BadInput) as refused:
            edited(case["edit"], case["before"])
        assert case["refused"] in str(refused.value)
    else:
        assert edited(case["edit"], case["before"]) == case["after"]
