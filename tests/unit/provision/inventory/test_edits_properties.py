"""Of generated inventories, YAML and ini, an edit changes what was asked alone; Ansible says so, too."""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provision.edges import process
from provision.errors import BadInput
from provision.inventory.formats import edits_of

RACKS = ("rack_a", "rack_b", "rack_c")
TEXTS = st.text(st.sampled_from("ab1 .:'\"#=\\{}-é"), min_size=1, max_size=8).map(str.strip).filter(bool)
VARIABLES = st.dictionaries(
    st.sampled_from(("note", "cluster_slots", "ansible_port", "cluster_drained")),
    st.one_of(TEXTS, st.integers(0, 99), st.booleans()),
)
NODES = st.lists(st.tuples(st.sampled_from(RACKS), VARIABLES), min_size=2, max_size=6)
EDITS = st.sampled_from(("add", "replace", "remove", "drain", "undrain"))
ADDRESS = "10.9.9.9"


def yaml_of(nodes: Sequence[tuple[str, dict[str, Any]]], gaps: Sequence[str]) -> str:
    """Groups of groups; each node in flow or in block style."""
    lines = ["cluster:", "  children:"]
    for rack in sorted({rack for rack, _ in nodes}):
        lines += [f"    {rack}:", "      hosts:"]
        for number, (its, variables) in enumerate(nodes, start=1):
            if its == rack:
                values = {"ansible_host": f"10.0.0.{number}", **variables}
                written = [f"{key}: {json.dumps(value)}" for key, value in values.items()]
                is_flow = number % 2 and all(":" not in str(value) for value in values.values())
                lines += [f"        te{number}: {{{', '.join(written)}}}"] if is_flow else [
                    f"        te{number}:", *(f"          {one}" for one in written)
                ]  # fmt: skip
                lines += [f"        {gaps[number % len(gaps)]}".rstrip()]
    return "\n".join(lines) + "\n"


def ini_of(nodes: Sequence[tuple[str, dict[str, Any]]], gaps: Sequence[str]) -> str:
    racks = sorted({rack for rack, _ in nodes})
    lines = ["[cluster:children]", *racks, "", "[cluster:vars]", "site_note=te1 is ours", ""]
    for rack in racks:
        lines.append(f"[{rack}]  # {rack}")
        for number, (its, variables) in enumerate(nodes, start=1):
            if its == rack:
                values = {"ansible_host": f"10.0.0.{number}", **variables}
                written = (f"{key}={quoted(value)}" for key, value in values.items())
                lines += [f"te{number}  {' '.join(written)}", gaps[number % len(gaps)]]
    return "\n".join(lines) + "\n"


def quoted(value: object) -> str:
    """As shlex reads it back: a literal of Python in double quotes."""
    literal = repr(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{literal}"' if isinstance(value, str) else literal


def read(text: str) -> dict[str, tuple[str, dict[str, Any]]]:
    return {line.name: (line.group, dict(line.values)) for line in edits_of(text).nodes(text).of_cluster()}


def edited(text: str, edit: str, name: str, group: str) -> str:
    edits = edits_of(text)
    if edit == "add":
        return edits.add(text, "te99", address=ADDRESS, slots=4, group=group)
    if edit == "replace":
        return edits.replace(text, name, address=ADDRESS)
    return str(getattr(edits, edit)(text, name))


def wanted(
    before: dict[str, tuple[str, dict[str, Any]]], edit: str, name: str, group: str
) -> dict[str, tuple[str, dict[str, Any]]]:
    after = {key: (its, dict(values)) for key, (its, values) in before.items()}
    if edit == "add":
        after["te99"] = (group, {"ansible_host": ADDRESS, "cluster_slots": 4})
    elif edit == "remove":
        del after[name]
    elif edit == "replace":
        after[name][1]["ansible_host"] = ADDRESS
    elif edit == "drain":
        after[name][1]["cluster_drained"] = True
    else:
        after[name][1].pop("cluster_drained", None)
    return after


@settings(max_examples=300, deadline=None)
@given(st.sampled_from((yaml_of, ini_of)), NODES, EDITS, st.integers(0, 5), st.data())
def test_an_edit_changes_what_was_asked_alone(
    form: Any, nodes: list[tuple[str, dict[str, Any]]], edit: str, which: int, data: st.DataObject
) -> None:
    gaps = data.draw(st.lists(st.sampled_from(("", "# a word of te9", "#te8")), min_size=1, max_size=3))
    number = which % len(nodes)
    name, group = f"te{number + 1}", nodes[number][0]
    text = form(nodes, gaps)
    before = read(text)
    assert {key: values for key, (_, values) in before.items()} == {
        f"te{at}": {"ansible_host": f"10.0.0.{at}", **variables}
        for at, (_, variables) in enumerate(nodes, start=1)
    }

    drained = {key for key, (_, values) in before.items() if values.get("cluster_drained") is True}
    is_last = edit == "drain" and name not in drained and not before.keys() - drained - {name}
    is_named = edit == "remove" and form is ini_of and name == "te1"  # in [cluster:vars]
    if is_last or is_named:
        with pytest.raises(BadInput):
            edited(text, edit, name, group)
        return
    after = edited(text, edit, name, group)

    assert read(after) == wanted(before, edit, name, group)
    touched = [line for line in difflib.ndiff(text.splitlines(), after.splitlines()) if line[0] in "+-"]
    assert len(touched) <= 2 + len(before[name][1])


def ansible_reads(path: Path) -> dict[str, Any]:
    """The nodes of the cluster and their variables, as Ansible takes them."""
    words = (sys.executable, "-m", "ansible", "inventory", "--list", "-i", path)
    found = json.loads(process.run(words, timeout_seconds=60).stdout)
    racks = found["cluster"].get("children", [])
    hosts = [host for rack in ("cluster", *racks) for host in found.get(rack, {}).get("hosts", [])]
    variables = {host: found["_meta"]["hostvars"].get(host, {}) for host in hosts}
    return {
        host: {key: v for key, v in of.items() if key != "ansible_local"} for host, of in variables.items()
    }


NODES_FOR_ANSIBLE: list[tuple[str, dict[str, Any]]] = [
    ("rack_a", {"note": 'a # b: it\'s "c" \\ d', "cluster_slots": 4}),
    ("rack_a", {"cluster_drained": True}),
    ("rack_b", {"note": "10"}),
    ("rack_b", {}),
]


@pytest.mark.parametrize("edit", ["add", "replace", "remove", "drain", "undrain"])
@pytest.mark.parametrize("form", [yaml_of, ini_of])
def test_ansible_reads_what_the_edit_says(form: Any, edit: str, tmp_path: Path) -> None:
    text = form(NODES_FOR_ANSIBLE, ["# between"])
    after = edited(text, edit, "te2", "rack_a")
    old, new = tmp_path / "before", tmp_path / "after"
    old.write_text(text)
    new.write_text(after)

    said = {name: values for name, (_, values) in read(after).items()}
    of_all = {"site_note": "te1 is ours"} if form is ini_of else {}
    assert ansible_reads(new) == {name: {**of_all, **values} for name, values in said.items()}
    assert said == {name: values for name, (_, values) in wanted(read(text), edit, "te2", "rack_a").items()}
