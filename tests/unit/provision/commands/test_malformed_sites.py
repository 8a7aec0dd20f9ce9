"""No command ends in a traceback, or in a word without a cause, whatever a site's files hold."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]
SITES = 216
COMMANDS: list[list[str]] = [
    ["status"],
    ["status", "--json"],
    ["smoke"],
    ["audit", "--keys-only"],
    ["doctor"],
    ["node", "add", "te9", "--address", "127.0.0.9", "--check"],
    ["node", "drain", "te1", "--check"],
    ["node", "remove", "te1", "--check"],
    ["node", "replace", "te1", "--address", "127.0.0.8", "--check"],
    ["image", "bake", "te1", "--check", "--output", "/nonexistent/image"],
    ["restore", "te1"],
    ["env", "verify"],
    ["image", "release", "te1"],
    ["image", "rehearse", "/nonexistent/image"],
    ["model", "list"],
    ["model", "verify", "qwen"],
    ["model", "fetch", "/nonexistent/model"],
    ["node", "undrain", "te1", "--check"],
]
# Values of a node's variables, each wrong or leading to nobody (port 1 of this machine refuses at once); and
# whole texts of hosts.yml and of an ini file.
CASES = json.loads((ROOT / "tests" / "cases" / "malformed_sites.json").read_text())
VALUES, TEXTS, INI = CASES["values"], CASES["texts"], CASES["ini"]
# Where a cause stands: after `found:`, and of each node in a line, in the cell of a table or in JSON.
CAUSES = (
    re.compile(r"(?:^found|unreachable(?: [^:\s]+)?|not audited):[ \t]*([^│\n]*)", re.MULTILINE),
    re.compile(r'"unreachable": "([^"]+)"'),
)
WITHOUT_A_CAUSE = re.compile(r"([.,:;].*|\w*(Error|Exception)|None|Aborted\.?|)\s*:?\s*", re.DOTALL)


def written(folder: Path, number: int, draw: random.Random) -> Path:
    """One site, and what to give to -i."""
    folder.mkdir()
    (folder / "noise").write_bytes(draw.randbytes(300))
    kind = number % 6
    if kind == 0:
        (folder / "hosts.yml").write_text(TEXTS[number // 6 % len(TEXTS)])
        return folder
    if kind == 1 and number // 6 < len(INI):
        (folder / "hosts").write_text(INI[number // 6])
        return draw.choice([folder, folder / "hosts"])
    hosts = {}
    for name in draw.sample(["te1", "te2", "TE 3"], draw.randint(1, 3)):
        wrong = draw.sample(sorted(VALUES), draw.randint(1, 3))
        values = {"ansible_host": "127.0.0.1", "ansible_port": 1}
        values |= {one: draw.choice(VALUES[one]) for one in wrong}
        hosts[name] = values if draw.random() < 0.9 else {"ansible_host": "127.0.0.1"}
    text = json.dumps({"cluster": {"hosts": hosts}}).replace("{folder}", str(folder))
    if kind == 5:
        at = draw.randrange(len(text))
        text = (
            text[:at]
            + draw.choice(["", "\t", "\n", "{{", "*", "\u2028", "'"])
            + text[at + draw.randint(0, 3) :]
        )
    (folder / "hosts.yml").write_text(text)
    if kind == 2:
        more = folder / draw.choice(["group_vars", "host_vars"])
        more.mkdir()
        (more / draw.choice(["cluster.yml", "te1.yml", "all"])).write_text(draw.choice(TEXTS))
    return draw.choice(
        [folder, folder / "hosts.yml", folder / "hosts.yml", folder / "none", folder / "noise"]
    )


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[list[str], str, int, str]]:
    """Of each site one command: its words, the site's text, its status and what it said."""
    folder, draw = tmp_path_factory.mktemp("sites"), random.Random(17)
    cases, texts = [], []
    for number in range(SITES):
        inventory = written(folder / str(number), number, draw)
        cases.append([*COMMANDS[number % len(COMMANDS)], "-i", str(inventory)])
        files = (path for path in sorted((folder / str(number)).rglob("*")) if path.is_file())
        texts.append("\n".join(path.read_text(errors="replace") for path in files if path.name != "noise"))
    told = subprocess.run(
        [sys.executable, "-m", "tests.unit.provision.many_sites"],
        input=json.dumps(cases),
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "SSH_AUTH_SOCK"},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(told.stdout)
    return [(words, text, *one) for words, text, one in zip(cases, texts, found, strict=True)]


def no_traceback(status: int, said: str) -> bool:
    return "Traceback" not in said and status in (0, 1, 2, 3, 4, 5)


def a_cause(status: int, said: str) -> bool:
    """Each place of a cause has one."""
    causes = [cause for place in CAUSES for cause in place.findall(said)]
    return status == 0 or (len(said.split()) > 5 and not any(map(WITHOUT_A_CAUSE.fullmatch, causes)))


@pytest.mark.parametrize("holds", [no_traceback, a_cause], ids=lambda one: one.__name__)
def test_a_command_on_a_malformed_or_unreachable_site(
    ended: list[tuple[list[str], str, int, str]], holds: Callable[[int, str], bool]
) -> None:
    wrong = [one for one in ended if not holds(one[2], one[3])]

    shown = (f"{words}\n{text[:600]}\n{status}\n{told[-1500:]}" for words, text, status, told in wrong)
    assert not wrong, f"{len(wrong)} of {len(ended)}\n" + "\n\n".join(list(shown)[:5])


def test_the_sites_are_read_and_end_in_many_ways(ended: list[tuple[list[str], str, int, str]]) -> None:
    """Else one fault of what runs them would stand for all."""
    causes = {re.sub(r"/\S*|\d+", "", told) for *_, told in ended}

    assert len(causes) > SITES // 4


@pytest.mark.parametrize(
    "said",
    [
        "error: cannot read the inventory x\nfound: \nfix:   correct the file that it names",
        "│ te1  │ te1 │ unreachable: . ansible-playbook playbooks/validate.yml says more │",
        "te1: the node\n  why   it was not audited: TimeoutError\n  mend  Audit again once it answers.",
        "cause unreachable te1: None\n  check  ssh te1 true and what else there is",
        '{"nodes": [{"name": "te1", "unreachable": ". ansible-playbook says more of all this"}]}',
    ],
)
def test_a_word_without_a_cause_is_seen(said: str) -> None:
    assert not a_cause(1, said)
    assert a_cause(1, "error: cannot read the inventory x\nfound: there is none\nfix:   Correct -i.")
