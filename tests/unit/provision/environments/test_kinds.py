"""`auto` takes the newest kind that all nodes run, by what nvidia-smi says there; or names who cannot."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from provision.environments.gpu_survey import surveyed
from provision.environments.kinds import (
    Node,
    choose,
    chosen_lock,
    kept_problem,
    locked_kinds,
    recorded,
    table_of,
    with_choice,
)
from provision.errors import BadInput
from provision.roles.gpu_driver import Card

ROOT = Path(__file__).parents[4]
TABLE = table_of(yaml.safe_load((ROOT / "envs" / "kinds.yml").read_text()))
FIVE = ["cuda124", "cuda126", "cuda128", "cuda130", "cpu"]
MIXES: list[dict[str, Any]] = yaml.safe_load(
    (ROOT / "tests" / "cases" / "environment_kind" / "mixes.yml").read_text()
)
# A line of text without anything that a terminal obeys, or that a template could be made of.
PLAIN = re.compile(r"[A-Za-z0-9 .,;:()/\[\]'_+?-]*")
A10 = Card(name="NVIDIA A10", capability="8.6")
V100 = Card(name="Tesla V100-SXM2-16GB", capability="7.0")


def node_of(name: str, said: Mapping[str, Any]) -> Node:
    if not said.get("looks", True):
        return Node(name=name)
    files = {}
    for number, device in enumerate(said["cards"]):
        folder = f"/sys/bus/pci/devices/0000:{number:02x}:00.0"
        files |= {f"{folder}/vendor": "0x10de\n", f"{folder}/class": "0x030200\n"}
        files[f"{folder}/device"] = f"0x{device}\n"
    if "loaded" in said:
        files["/sys/module/nvidia/version"] = f"{said['loaded']}\n"
    if "nouveau" in said:
        files["/sys/module/nouveau/refcnt"] = "1\n"
    smi, installs = said["smi"], said.get("installs", "")
    return surveyed(name, files, TABLE, smi_rc=said.get("rc", 0), smi_output=smi.strip(), installs=installs)


@pytest.mark.parametrize("mix", MIXES, ids=lambda mix: str(mix["name"]))
def test_a_mix_of_nodes_gets_its_kind_or_who_cannot_is_named(mix: dict[str, Any]) -> None:
    nodes = [node_of(name, said) for name, said in mix["nodes"].items()]

    choice = choose(
        nodes,
        TABLE,
        mix.get("locked", FIVE),
        environment="llm",
        architecture=mix.get("architecture", "x86_64"),
    )

    assert choice.kind == mix.get("kind", ""), choice
    assert set(choice.refused) == set(mix.get("refused", {})), choice
    assert bool(choice.problem) == ("problem" in mix), choice
    expected = [("why", choice.why), ("problem", choice.problem)]
    for key, text in expected:
        assert_says(text, mix.get(key, []))
    for name, words in mix.get("refused", {}).items():
        assert_says(choice.refused[name], words)
    texts = [choice.why, choice.problem, *choice.refused.values()]
    assert all(text.isprintable() for text in texts)
    assert "quiet" not in mix or all(PLAIN.fullmatch(text) for text in texts)


def assert_says(text: str, words: str | list[str]) -> None:
    if isinstance(words, str):
        assert text == words
    else:
        assert all(word in text for word in words), text


@pytest.mark.parametrize(
    ("architecture", "kinds"), [("x86_64", ["cpu", "cuda130"]), ("aarch64", ["cuda128"])]
)
def test_a_kind_is_locked_for_the_processors_that_its_lock_names(architecture: str, kinds: list[str]) -> None:
    names = ["wheels-cuda130.lock", "wheels-cpu.lock", "wheels-cuda128-aarch64.lock", "wheels-cuda124.in"]

    assert locked_kinds(names, architecture) == kinds


def test_the_kinds_are_ordered_and_what_the_table_says_of_them_is_whole() -> None:
    numbers = [tuple(map(int, kind.cuda.split("."))) for kind in TABLE.kinds]
    ranges = [(cards.first, cards.below) for cards in TABLE.cards]

    assert numbers == sorted(numbers)
    assert [kind.name for kind in TABLE.kinds] == [
        f"cuda{kind.cuda.replace('.', '')}" for kind in TABLE.kinds
    ]
    assert all(bool(kind.ptx) == bool(kind.ptx_driver) for kind in TABLE.kinds)
    assert all(first < below for first, below in ranges)
    assert all(below <= first for (_, below), (first, _) in itertools.pairwise(ranges))


@pytest.mark.parametrize(
    ("number", "capability"),
    [
        (0x1024, "3.0"),
        (0x102D, "3.7"),
        (0x13F2, "5.0"),
        (0x15F8, "6.0"),
        (0x1B38, "6.1"),
        (0x1DB1, "7.0"),
        (0x1EB8, "7.5"),
        (0x20B5, "8.0"),
        (0x2236, "8.6"),
        (0x25B6, "8.6"),
        (0x27B8, "8.9"),
        (0x2330, "9.0"),
        (0x2901, "10.0"),
        (0x2B85, "12.0"),
        (0x3182, "10.3"),
        (0x2B00, ""),
        (0x3FFF, ""),
    ],
)
def test_a_card_is_known_by_its_pci_number(number: int, capability: str) -> None:
    assert TABLE.capability(number) == capability


@pytest.mark.parametrize(
    ("kind", "node", "is_chosen", "words"),
    [
        ("cuda130", Node(name="", driver="580.95.05", cards=[A10]), True, []),
        ("cuda128", Node(name="", driver="580.95.05", cards=[V100]), False, []),
        (
            "cuda130",
            Node(name="", driver="580.95.05", cards=[V100]),
            False,
            ["7.0", "It runs cuda118, cuda124"],
        ),
        ("cuda130", Node(name="", driver="580.95.05", cards=[V100]), True, ["and cuda128 (cluster_env"]),
        ("cuda130", Node(name=""), True, ["it has no GPU, and the kind cuda130 was chosen for nodes with"]),
        ("cuda130", Node(name=""), False, []),
        ("cpu", Node(name="", driver="580.95.05", cards=[A10]), True, ["it has GPUs, and the kind cpu was"]),
        ("cpu", Node(name="", driver="580.95.05", cards=[A10]), False, []),
        ("cpu", Node(name=""), True, []),
        ("ours", Node(name="", driver="580.95.05", cards=[V100]), False, []),
    ],
)
def test_a_node_that_comes_later_is_held_against_the_kind_in_use(
    kind: str, node: Node, is_chosen: bool, words: list[str]
) -> None:
    problem = kept_problem(kind, node, TABLE, is_chosen=is_chosen)

    assert bool(problem) == bool(words), problem
    assert all(word in problem for word in words), problem


def test_a_choice_is_read_as_it_was_written_and_others_stay() -> None:
    first = with_choice("", "llm", kind="cuda128", why="te1 is old", path="x")
    both = with_choice(yaml.safe_dump(first), "serve", kind="cpu", why="no GPU", path="x")

    assert recorded("", "llm", path="x") == ""
    assert recorded(yaml.safe_dump(both), "llm", path="x") == "cuda128"
    assert recorded(yaml.safe_dump(both), "serve", path="x") == "cpu"


@pytest.mark.parametrize(
    "text",
    ["[", "llm", "- llm", "llm: cuda128", "llm: {why: x}", "llm: {kind: 3}", "llm: {kind: ../x}", "llm:"],
)
def test_a_record_that_is_damaged_is_named_and_nothing_is_guessed(text: str) -> None:
    with pytest.raises(BadInput, match=re.escape("in /s/kinds.yml: it does not say that. Mend it")):
        recorded(text, "llm", path="/s/kinds.yml")


def test_without_a_kind_nothing_is_built() -> None:
    with pytest.raises(BadInput, match="no kind was chosen yet for this site"):
        chosen_lock("")
