"""The grammar of hostfiles and filters, on data cases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import BadInput
from runtime.job.hostfile import Host, parse_hostfile
from runtime.job.selection import choose

CASES = Path(__file__).parents[3] / "cases" / "hostfile"
HOSTS = (Host(name="te1", slots=2), Host(name="te2", slots=4), Host(name="te3", slots=1))


def cases(name: str) -> list[Any]:
    return [pytest.param(case, id=case["name"]) for case in yaml.safe_load((CASES / name).read_text())]


@pytest.mark.parametrize("case", cases("hostfiles.yml"))
def test_a_hostfile_is_read_or_refused_at_its_line_and_column(case: dict[str, Any]) -> None:
    if "hosts" in case:
        read = parse_hostfile(case["text"], source="hosts")
        assert [[host.name, host.slots, host.user] for host in read] == case["hosts"]
        return

    with pytest.raises(BadInput) as refused:
        parse_hostfile(case["text"], source="hosts")

    if "error" in case:
        line, column, words = case["error"]
        assert refused.value.asked == f"read hosts, line {line}, column {column}"
        assert words in refused.value.found
    else:
        assert refused.value.found == "no node in it"


@pytest.mark.parametrize("case", cases("selections.yml"))
def test_options_choose_nodes_and_slots_or_are_refused(case: dict[str, Any]) -> None:
    if "nodes" in case:
        chosen = choose(HOSTS, **case["options"])
        assert {node.host.name: list(node.slots) for node in chosen} == case["nodes"]
        assert [node.host.name for node in chosen if node.picked] == case.get("picked", [])
        return

    with pytest.raises(BadInput) as refused:
        choose(HOSTS, **case["options"])

    assert case["error"] in str(refused.value)


names = st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True)


@given(st.dictionaries(names, st.integers(1, 64), min_size=1, max_size=8))
def test_what_is_written_is_read_back(slots_by_name: dict[str, int]) -> None:
    text = "".join(f"{name} slots={slots}\n" for name, slots in slots_by_name.items())

    read = parse_hostfile(text, source="hosts")

    assert {host.name: host.slots for host in read} == slots_by_name


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused_in_words(text: str) -> None:
    try:
        hosts = parse_hostfile(text, source="hosts")
    except BadInput:
        return
    assert all(host.slots > 0 and not host.name.startswith("-") for host in hosts)
