"""The whole way of a site, for sites as people have them: made, proven, looked after, and given back.

Each file of tests/cases/sites is one. The gate asks what is particular to each for less, on blank nodes and
by the roles that it touches: the other test_sites_*, test_ways_in, test_kept.
"""

from __future__ import annotations

import json
import string
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from provision.lab import observe
from provision.lab.fault.injection import init_of
from provision.lab.fault.model import within
from tests.lab.conftest import MIRROR, ROOT, LabUnderTest, changed, made, playbook, provision
from tests.lab.given_back import FILES, not_given_back

CASES = Path(__file__).parents[1] / "cases" / "sites"
pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A site on two nodes of a lab.

    In its texts $te1 and $te2 are addresses, $disk1 and $disk2 the data disks as this machine sees them, $key
    and $known the controller's files, $controller its address; any other dollar is the shell's.

    Attributes:
        inventory: the text of its hosts, as a person writes it.
        file: its name.
        group: to which a new node belongs, where the site has several.
        release: of the nodes, where it is not this machine's.
        here: what is done on this machine beforehand.
        prepare: what is done on blank nodes then; `all` on each.
        data: where the site has its data; see `not_given_back`.
        holds: of nodes, what commands print after site.yml.
        kept: commands that print the same before site.yml, after it and after the teardown, on each node.
    """

    name: str
    inventory: str
    file: str = "hosts.yml"
    group: str = ""
    release: str = ""
    here: str = "true"
    prepare: Mapping[str, str] = field(default_factory=dict)
    data: str = "/data"
    holds: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    kept: tuple[str, ...] = ()


def cases() -> list[Any]:
    found = [(path.stem, yaml.safe_load(path.read_text())) for path in sorted(CASES.glob("*.yml"))]
    return [pytest.param(Case(name=name, **given), id=name) for name, given in found]


@pytest.fixture(scope="module")
def lab_of(mirror: None) -> Iterator[Callable[[str], LabUnderTest]]:
    """Makes a lab of two nodes of a release, once."""
    with ExitStack() as labs:

        @cache
        def lab(release: str) -> LabUnderTest:
            if not release:
                return labs.enter_context(contextmanager(made)("whole", "10.77.245.0/24", 2))
            provision(*MIRROR, "--release", release, timeout_seconds=1500)
            return labs.enter_context(contextmanager(made)(release[:8], "10.77.246.0/24", 2, release=release))

        yield lab


def inside(lab: LabUnderTest, node: str, command: str) -> str:
    """What a command prints on a node, whichever way leads there."""
    init = init_of(observe.keepers_in(lab.lab.folder)[node])
    assert init is not None
    words = within(init, ("bash", "-c", command))
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, f"{node}: {command}\n{done.stdout}\n{done.stderr}"
    return done.stdout.strip()


def of_all(lab: LabUnderTest, command: str) -> list[str]:
    return [inside(lab, node, command) for node in lab.nodes]


@pytest.fixture
def site(
    request: pytest.FixtureRequest, lab_of: Callable[[str], LabUnderTest]
) -> Iterator[tuple[Case, LabUnderTest]]:
    """Blank nodes that are prepared, and the inventory of the case; afterwards the lab's own again."""
    case = request.param
    lab = lab_of(case.release)
    hosts = lab.inventory / "hosts.yml"
    before = hosts.read_text()
    lab.reset()
    words = {node: lab.address(node) for node in lab.nodes} | {
        "key": str(lab.lab.ssh_key),
        "known": str(lab.lab.known_hosts),
        "controller": lab.lab.gateway,
        **{f"disk{number}": disk(lab, node) for number, node in enumerate(lab.nodes, 1)},
    }
    subprocess.run(["bash", "-ec", filled(case.here, words)], check=True, timeout=60)
    for node in lab.nodes:
        for who in ("all", node):
            inside(lab, node, filled(case.prepare.get(who, "true"), words))
    hosts.unlink()
    (lab.inventory / case.file).write_text(filled(case.inventory, words))
    known = lab.lab.known_hosts.read_text()  # as if the owner had compared them at the console
    lab.lab.known_hosts.write_text(known + of_port_2222(known))
    yield case, lab
    (lab.inventory / case.file).unlink()
    hosts.write_text(before)


def filled(text: str, words: Mapping[str, str]) -> str:
    return string.Template(text).safe_substitute(words)


def disk(lab: LabUnderTest, node: str) -> str:
    """The loop device that a node has as /dev/vdb."""
    image = next(found.disk for found in lab.lab.nodes if found.name == node)
    words = ["losetup", "--associated", str(image), "--noheadings", "--output", "NAME"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def of_port_2222(known: str) -> str:
    lines = [line.split(" ", 1) for line in known.splitlines()]
    return "".join(f"[{address}]:2222 {key}\n" for address, key in lines)


@pytest.mark.parametrize("site", cases(), indirect=True)
def test_a_site_is_made_proven_looked_after_and_given_back(
    site: tuple[Case, LabUnderTest], tmp_path: Path
) -> None:
    case, lab = site
    files, kept = of_all(lab, FILES), [of_all(lab, command) for command in case.kept]
    addresses = {node: lab.address(node) for node in lab.nodes}
    names = list(json.loads(listed(lab))["_meta"]["hostvars"])

    playbook(lab)
    assert [of_all(lab, command) for command in case.kept] == kept
    again = playbook(lab)
    assert not any(changed(again).values()), again.stdout
    for node, commands in case.holds.items():
        said = {command: inside(lab, node, command) for command in commands}
        assert said == {command: filled(words, addresses) for command, words in commands.items()}

    where = ("-i", str(lab.inventory))
    provision("smoke", "--quick", *where)
    status = json.loads(provision("status", "--json", *where).stdout)
    assert len(names) == 2
    assert all(name in json.dumps(status) for name in names)
    group = ("--group", case.group) if case.group else ()
    provision("node", "add", "te3", "--address", str(lab.lab.subnet[13]), "--check", *group, *where)
    provision("image", "bake", names[0], "--output", str(tmp_path), "--check", *where)

    playbook(lab, "playbooks/teardown.yml", "-e", f"teardown_confirm={lab.name}")
    assert [of_all(lab, command) for command in case.kept] == kept
    after = of_all(lab, FILES)
    lost = [not_given_back(*both, data=case.data) for both in zip(files, after, strict=True)]
    assert lost == [[], []]


def listed(lab: LabUnderTest) -> str:
    words = (Path(sys.executable).parent / "ansible-inventory", "-i", lab.inventory, "--list")
    return subprocess.run(words, capture_output=True, text=True, check=True, cwd=ROOT).stdout
