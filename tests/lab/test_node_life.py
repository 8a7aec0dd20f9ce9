"""A node comes to four others, another machine takes its place, it is taken down, put up and removed.

In which order, what is put back and what a second run does: tests/unit/provision/nodes/test_life.py.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from provision.lab import record
from tests.conftest import RecordRefusal
from tests.lab.conftest import COUNTING_SSH, JOB_USER, Finished, LabUnderTest, changed, playbook, provision
from tests.lab.given_back import FILES, not_given_back

pytestmark = pytest.mark.long
KNOWN_HOSTS = "/etc/ssh/ssh_known_hosts"
HOSTFILE = "/etc/clusterwright/hostfile"
OLD = ("te1", "te2", "te3", "te4")
# The clock of te1 leads, and is told first that there is one more to answer.
OTHERS = OLD[1:]
LOGIN_AND_CALL = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A lab of four converged nodes and two blank machines, and the inventory that a person edits."""

    lab: LabUnderTest
    inventory: Path
    folder: Path

    @property
    def hosts(self) -> Path:
        return self.inventory / "hosts.yml"

    @property
    def log(self) -> Path:
        return self.folder / "ssh.log"

    def node(self, *words: str, check: bool = True) -> Finished:
        """Runs `provision node WORDS`, and counts what ssh is asked for."""
        self.log.write_text("")
        env = {**os.environ, "ANSIBLE_SSH_EXECUTABLE": str(self.folder / "ssh")}
        words = ("node", *words, "-i", str(self.inventory), "--json")
        return provision(*words, timeout_seconds=600, check=check, env=env)

    def operations(self) -> Counter[str]:
        """How often ssh was called, by machine of the lab."""
        names = {node.address: node.name for node in self.lab.lab.nodes}
        return Counter(names[address] for address in self.log.read_text().split())

    def known_hosts(self, node: str) -> list[str]:
        return self.lab.out(node, f"cat {KNOWN_HOSTS}").splitlines()


@pytest.fixture(scope="module")
def site(converged_lab: LabUnderTest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The lab with te5 and te6 beside the four nodes; both are off at the end, and the site is as it was."""
    folder = tmp_path_factory.mktemp("site")
    hosts = (converged_lab.inventory / "hosts.yml").read_text()
    provision("lab", "up", "--name", converged_lab.name, "--nodes", "6")
    (converged_lab.inventory / "hosts.yml").write_text(hosts)
    shutil.copytree(converged_lab.inventory, folder / "site", symlinks=True)
    (folder / "ssh").write_text(COUNTING_SSH.format(log=folder / "ssh.log"))
    (folder / "ssh").chmod(0o755)
    grown = record.load(converged_lab.lab.folder)
    assert grown is not None
    yield Site(lab=LabUnderTest(lab=grown), inventory=folder / "site", folder=folder)
    converged_lab.power_off("te5", "te6")


def as_json(finished: Finished) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(finished.stdout)
    return found


def certified(site: Site, node: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(site.lab.out(node, "cat /etc/clusterwright/certificate.json"))
    return dict(found["certificate"])


def test_a_node_is_added_with_one_operation_on_each_old_node(site: Site) -> None:
    text, before = site.hosts.read_text(), certified(site, "te1")
    address = site.lab.address("te5")

    preview = site.node("add", "te5", "--address", address, "--check")
    assert as_json(preview)["edit"] == [f"+     te5: {{ansible_host: {address}}}"]
    assert site.hosts.read_text() == text

    done = as_json(site.node("add", "te5", "--address", address))

    operations = site.operations()
    print(f"node add: {done['seconds']} s, ssh operations {dict(operations)}, steps {done['steps']}")
    assert site.hosts.read_text() == f"{text}    te5: {{ansible_host: {address}}}\n"
    assert all(operations[node] <= LOGIN_AND_CALL for node in OTHERS)
    assert operations["te5"] > 10
    assert done["pending"] == []
    assert site.lab.out("te2", f"cat {HOSTFILE}").split() == site.lab.out("te5", f"cat {HOSTFILE}").split()
    assert site.lab.out("te3", "ssh -o BatchMode=yes te5 hostname", user=JOB_USER) == "te5"
    # Pairs of the old nodes were not measured again, so what was known of them does not live longer.
    assert list(certified(site, "te2")["nodes"]) == [*OLD, "te5"]
    assert certified(site, "te2")["expires"] <= before["expires"]
    result = json.loads(site.lab.out("te5", "cat /etc/clusterwright/smoke.json"))
    measured = [pair for pair in result["pairs"] if pair["bytes_per_s"]]
    assert len([pair for pair in measured if "te5" in (pair["source"], pair["target"])]) == 8
    assert len(measured) == 12


def test_another_machine_takes_its_place_and_no_other_host_key_changes(site: Site) -> None:
    before = site.known_hosts("te2")
    address = site.lab.address("te6")
    site.lab.power_off("te4")
    (site.folder / "files").write_text(files(site, "te6"))

    done = as_json(site.node("replace", "te5", "--address", address))

    operations = site.operations()
    print(f"node replace, te4 off: {done['seconds']} s, ssh operations {dict(operations)}")
    after = site.known_hosts("te2")
    assert [line for line in after if not line.startswith("te5,")] == [
        line for line in before if not line.startswith("te5,")
    ]
    assert {line.split()[0] for line in after if line.startswith("te5,")} == {f"te5,{address}"}
    assert set(after).isdisjoint(line for line in before if line.startswith("te5,"))
    assert all(operations[node] <= LOGIN_AND_CALL for node in OTHERS)
    assert site.lab.out("te1", "ssh -o BatchMode=yes te5 hostname", user=JOB_USER) == "te5"
    # Who is off is named, is not tested, and is told when it is met again.
    assert done["pending"] == ["te4"]
    assert list(certified(site, "te6")["nodes"]) == ["te1", "te2", "te3", "te5"]
    shown = as_json(provision("status", "-i", str(site.inventory), "--json", check=False))
    of_te4 = next(node for node in shown["nodes"] if node["name"] == "te4")
    assert of_te4["unreachable"]
    assert of_te4["pending_since"]
    assert "members.yml" in of_te4["last_failure"]["playbook"]


def test_a_node_that_is_drained_takes_no_jobs_and_who_was_off_catches_up(site: Site) -> None:
    site.lab.power_on("te4")
    text = site.hosts.read_text()

    drained = as_json(site.node("drain", "te2"))

    assert drained["pending"] == []
    assert site.known_hosts("te4") == site.known_hosts("te1")
    assert "te2" not in site.lab.out("te4", f"cat {HOSTFILE}")
    site.node("undrain", "te2")
    assert site.hosts.read_text() == text
    assert "te2" in site.lab.out("te4", f"cat {HOSTFILE}")


def files(site: Site, machine: str) -> str:
    return "\n".join(sorted(site.lab.run(machine, FILES, timeout_seconds=120).stdout.splitlines()))


def test_a_teardown_asks_first_leaves_what_the_readme_lists_and_can_be_undone(site: Site) -> None:
    words = ("playbooks/teardown.yml", "-i", str(site.inventory), "--limit", "te5")

    refused = playbook(site.lab, *words, check=False)
    assert f"run it again with -e teardown_confirm={site.lab.name}" in " ".join(refused.stdout.split())
    playbook(site.lab, *words, "-e", f"teardown_confirm={site.lab.name}")

    assert not_given_back((site.folder / "files").read_text(), files(site, "te6")) == []
    assert site.lab.out("te6", "ls /data/miniconda3/envs") == "torch"
    playbook(site.lab, "-i", str(site.inventory), "--limit", "te5")
    assert site.lab.out("te1", "ssh -o BatchMode=yes te5 zerorun --help", user=JOB_USER).startswith("Usage")


@pytest.mark.attack("node")
def test_a_node_that_is_removed_is_let_in_nowhere_but_by_a_key_that_is_named(
    site: Site, record_refusal: RecordRefusal
) -> None:
    ssh = "ssh -o BatchMode=yes -o StrictHostKeyChecking=yes -o ConnectTimeout=5"
    into, planted = f"{ssh} te1 hostname", f"{ssh} -o IdentitiesOnly=yes -i ~/.ssh/planted te1 hostname"
    if "te5:" not in site.hosts.read_text():  # `make drill-security` runs no test before this one
        site.node("add", "te5", "--address", site.lab.address("te6"))
    assert site.lab.out("te6", into, user=JOB_USER) == "te1"
    plant = "ssh-keygen -q -t ed25519 -N '' -C planted -f ~/.ssh/planted"
    plant += f"; {ssh} te1 'cat >> .ssh/authorized_keys' < ~/.ssh/planted.pub"
    site.lab.run("te6", plant, user=JOB_USER)
    assert site.lab.out("te6", planted, user=JOB_USER) == "te1"

    done = as_json(site.node("remove", "te5"))

    print(f"node remove: {done['seconds']} s, ssh operations {dict(site.operations())}")
    assert site.hosts.read_text() == (site.lab.inventory / "hosts.yml").read_text()
    refused = site.lab.run("te6", into, check=False, user=JOB_USER).stderr
    record_refusal(refused)
    assert "Permission denied" in refused
    keys = f"/home/{JOB_USER}/.ssh/authorized_keys"
    (named,) = done["audit"]
    record_refusal(f"{named['node']}: {named['what']}: {named['why']}")
    assert (named["node"], keys in named["what"]) == ("te1", True)
    assert "its other half seems to be on te5" in named["why"]
    site.lab.run("te1", f"sed -i '/ planted$/d' {keys}")
    assert "Permission denied" in site.lab.run("te6", planted, check=False, user=JOB_USER).stderr
    assert site.lab.out("te2", into, user=JOB_USER) == "te1"
    assert not any("te5" in line for line in site.known_hosts("te3"))
    assert "te5" not in site.lab.out("te3", "cat /etc/hosts")
    assert list(certified(site, "te4")["nodes"]) == list(OLD)
    assert changed(playbook(site.lab)) == dict.fromkeys(OLD, 0)
