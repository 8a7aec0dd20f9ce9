"""Which file of a site is edited, of those that Ansible reads."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from provision.edges import process
from provision.edges.playbook import CHECKOUT
from provision.errors import BadInput
from provision.inventory.members import Action
from provision.inventory.site_files import edited_file, sources

YAML = "cluster:\n  hosts:\n    te1: {ansible_host: 10.0.0.1}\n    te2: {ansible_host: 10.0.0.2}\n"
INI = "[cluster]\nte3 ansible_host=10.0.0.3\nte4 ansible_host=10.0.0.4\n"
RACK = INI.replace("[cluster]", "[cluster:children]\nrack\n[rack]")
GPUS = "[nvidia_gpu]\nte1\n"


def site(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return folder


@pytest.mark.parametrize(
    ("files", "action", "node", "group", "found"),
    [
        ({"hosts.yaml": YAML}, "add", "te9", None, "hosts.yaml"),
        ({"hosts": INI}, "add", "te9", None, "hosts"),
        ({"hosts": YAML}, "drain", "te1", None, "hosts"),
        ({"hosts.ini": INI, "README.md": YAML, "hosts.yml.orig": YAML}, "drain", "te3", None, "hosts.ini"),
        ({"hosts.yml": YAML, "group_vars/cluster.yml": "cluster: {hosts: {te1: {}}}"}, "drain", "te1", None,
         "hosts.yml"),
        ({"hosts.yml": YAML, "more": INI}, "drain", "te3", None, "more"),
        ({"hosts.yml": YAML, "more": INI}, "replace", "te1", None, "hosts.yml"),
        ({"hosts.yml": YAML, "more": INI}, "remove", "te9", None, "hosts.yml"),
        ({"hosts.yml": YAML, "more": RACK}, "add", "te9", "rack", "more"),
        ({"hosts.yml": YAML, "gpus": GPUS}, "drain", "te1", None, "hosts.yml"),
        ({"hosts.yml": YAML, "clouds.yml": "plugin: amazon.aws.aws_ec2\n"}, "add", "te9", None, "hosts.yml"),
        ({"hosts.yml": YAML, "deeper/racks": INI}, "drain", "te4", None, "deeper/racks"),
    ],
)  # fmt: skip
def test_the_file_is_the_one_that_lists_the_node(
    files: dict[str, str], action: str, node: str, group: str | None, found: str, tmp_path: Path
) -> None:
    assert edited_file(site(tmp_path, files), Action(action), node, group) == tmp_path / found


@pytest.mark.parametrize(
    ("files", "action", "node", "words"),
    [
        ({}, "add", "te9", "Ansible reads no file there"),
        ({"README.md": YAML}, "add", "te9", "no file there, and ignores README.md for the name"),
        ({"hosts.toml": "[cluster]\n"}, "add", "te9", "hosts.toml (TOML is not edited)"),
        ({"hosts": "#!/bin/sh\n"}, "add", "te9", "hosts (a program)"),
        ({"gpus": GPUS, "users.yml": "a: {hosts: {te1: }}"}, "drain", "te1",
         "gpus (it lists no nodes of the cluster), users.yml (it lists"),
        ({"hosts.yml": YAML, "more": INI}, "add", "te9", "stand in several files"),
        ({"hosts.yml": YAML, "more": INI}, "add", "te9", "--group"),
        ({"hosts.yml": YAML, "more": INI}, "drain", "te9", "stand in several files"),
        ({"hosts.yml": YAML, "hosts.yaml": YAML}, "drain", "te1", "hosts.yaml"),
        ({"hosts.yml": YAML, "gpus": GPUS}, "remove", "te1", "gpus names it as well"),
        ({"hosts.yml": YAML, "gpus": "[gpu]\nte[1:4]\n"}, "remove", "te2", "gpus names it as well"),
        ({"hosts.yml": YAML, "gpus": "[gpu]\nte1 cluster_slots=1\n"}, "drain", "te1", "names it as well"),
    ],
)  # fmt: skip
def test_what_was_found_instead_is_said(
    files: dict[str, str], action: str, node: str, words: str, tmp_path: Path
) -> None:
    with pytest.raises(BadInput) as refused:
        edited_file(site(tmp_path, files), Action(action), node, None)

    assert words in str(refused.value)


def test_a_file_that_cannot_be_read_is_named_before_another_is_edited(tmp_path: Path) -> None:
    inventory = site(tmp_path, {"hosts.yml": YAML, "more": "[cluster]\nte3 note='\n"})

    with pytest.raises(BadInput, match=r"read .*more: line 2 has a quote that does not end"):
        edited_file(inventory, Action.add, "te9", None)


def test_a_site_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="there is none"):
        edited_file(tmp_path / "mine", Action.add, "te9", None)


def test_ansible_takes_the_same_files(tmp_path: Path) -> None:
    read = ["a", "b.yml", "c.yaml", "d.ini", "w/x"]
    ignored = [
        "e.orig",
        "f.cfg",
        "g.retry",
        "h~",
        "i.md",
        "j.txt",
        "k.rst",
        "l.bak",
        "m.swp",
        "n.pyc",
        "o.pyo",
    ]
    ignored += ["o.pyo", "p.rpm", ".q", "known_hosts", "secrets/r", "vars_plugins/u", "w/y.orig"]
    names = read + ignored
    is_yaml = [name.endswith((".yml", ".yaml")) for name in names]
    nodes = {f"node{at}": name for at, name in enumerate(names)}
    texts = [
        f"all: {{hosts: {{{node}: }}}}\n" if is_mapping else f"[all]\n{node}\n"
        for node, is_mapping in zip(nodes, is_yaml, strict=True)
    ]
    site(
        tmp_path,
        {**dict(zip(names, texts, strict=True)), "group_vars/all": "a: 1\n", "host_vars/b": "a: 1\n"},
    )

    words = (sys.executable, "-m", "ansible", "inventory", "--list", "-i", tmp_path)
    listed = json.loads(process.run(words, timeout_seconds=60, cwd=CHECKOUT).stdout)["ungrouped"]["hosts"]

    assert {nodes[node] for node in listed} == {*read}
    assert {str(path.relative_to(tmp_path)) for path in sources(tmp_path)} == {*read}
