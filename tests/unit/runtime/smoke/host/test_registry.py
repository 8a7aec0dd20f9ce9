"""What surveys say against nodes, one change of a healthy cluster at a time; a new file is a check."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from runtime.probes.host import Files
from runtime.smoke.checks import CATALOGUE
from runtime.smoke.host import registry
from runtime.smoke.host.registry import Clock, HostCheck, Nodes, evidence, judge, not_applicable
from runtime.untrusted.conform import Malformed
from tests.conftest import RecordRefusal
from tests.unit.runtime.smoke.host.cluster import NAMES, cluster, healthy, nodes


@pytest.mark.parametrize(
    ("changes", "check", "words"),
    [
        ({"own_address": "127.0.1.1"}, "own name", "te3 means 127.0.1.1"),
        (
            {"addresses_by_name": {**NAMES, "te2": "10.0.0.9"}},
            "names",
            "resolves te2 to 10.0.0.9, against 10.0.0.2",
        ),
        ({"addresses_by_name": {**NAMES, "te4": ""}}, "names", "does not know the name te4"),
        ({"mtu": 9000}, "mtu", "sends packets of 9000, against 1500"),
        ({"open_files": 256}, "open files", "may open 256 files"),
        ({"rdma": True}, "locked memory", "may lock only 8.0 MiB"),
        ({"shared_memory_free": 64 << 20}, "shared memory", "64.0 MiB free"),
        ({"free_bytes": {"/": 10 << 30, "/data": 0}}, "disk", "/data has 0 B free"),
        ({"free_files": {"/": 3}}, "disk", "/ has room for 3 more files"),
        ({"kernel": "5.15.0-99"}, "kernel", "runs Linux 5.15, against 6.1"),
        ({"environment": "e" * 64}, "environment", "has the environment eeeeeeeeeeee"),
        ({"nccl": "2.27.3"}, "nccl", "has NCCL 2.27.3, against 2.28.9"),
        (
            {"job_interface": "docker0", "job_address": "172.17.0.1/16"},
            "interface",
            "docker0 there, at 172.17.0.1/16; those of the others are in 10.0.0.0/24",
        ),
        ({"job_interface": "eth9", "job_address": ""}, "interface", "eth9 there, which is not there"),
        ({"processors": 4}, "hardware", "has 4 processors, the others 8"),
        ({"memory_bytes": 32 << 30}, "hardware", "bytes of memory"),
    ],
)
def test_the_odd_node_is_named(changes: dict[str, Any], check: str, words: str) -> None:
    (said,) = judge(nodes(cluster(**changes)))

    assert (said.hosts, said.ranks, said.check) == (("te3",), (2,), check)
    assert said.found.startswith("te3 (rank 2): ")
    assert words in said.found
    assert said.fix
    assert any(said.check in names for names in CATALOGUE.values())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"kernel": "6.1.0-43-amd64"},
        {"memory_bytes": 63 << 30},
        {"open_files": -1},
        {"interface": "lo", "mtu": 65536},
        {"rdma": True, "locked_bytes": -1},
        {"free_files": {}},
        {"environment": ""},
        {"job_interface": "ens7", "job_address": "10.0.0.103/24"},
        {"interface": "", "job_interface": "", "job_address": ""},
    ],
)
def test_what_is_well_or_does_not_matter_is_not_named(changes: dict[str, Any]) -> None:
    assert judge(nodes(cluster(**changes))) == ()


def test_a_machine_alone_may_call_itself_loopback() -> None:
    alone = {"te1": replace(healthy("te1"), own_address="127.0.1.1")}

    assert judge(nodes(alone)) == ()


def test_evidence_belongs_to_checks_that_exist_and_what_has_no_object_is_skipped() -> None:
    asked = nodes(
        clocks={"te1": Clock(offset=0, error=0)}, compute={"te1": 2e8}, files={"te1": Files(known=True)}
    )

    told = evidence(asked)
    assert told.keys() <= CATALOGUE.keys()
    assert told["host.compute"] == "one thread hashes 200 to 200 MB/s"
    assert "host.disk-write" not in told
    assert evidence(Nodes(ranks=asked.ranks)) == {}
    reasons = not_applicable(asked)
    assert reasons["host.locked-memory"] == "no RDMA device on any node"
    assert reasons["host.gpus"] == "no NVIDIA driver on any node"
    assert not reasons.keys() & {"host.nccl", "host.files"}
    without = not_applicable(nodes(cluster() | {host: replace(healthy(host), nccl="") for host in NAMES}))
    assert without.keys() >= {"host.nccl", "host.files"}


@dataclass(frozen=True)
class Fan:
    turns: int


def fan() -> Fan:
    return Fan(turns=900)


@pytest.fixture
def asking(monkeypatch: pytest.MonkeyPatch) -> HostCheck:
    """The only check, which asks something of nodes."""
    check = HostCheck(id="host.fan", names=("fan",), place=1, evidence=lambda _: "they turn", probe=fan)
    monkeypatch.setattr(registry, "host_checks", lambda: (check,))
    return check


@pytest.mark.usefixtures("asking")
def test_what_a_probe_gave_is_read_as_what_it_returns_and_what_nobody_asked_is_dropped() -> None:
    read = registry.conforming(replace(healthy("te1"), probed={"host.fan": {"turns": 3}, "host.odd": "x"}))

    assert read.probed == {"host.fan": Fan(turns=3)}
    assert evidence(nodes({"te1": read})) == {"host.fan": "they turn"}
    assert evidence(nodes({"te1": healthy("te1")})) == {}


@pytest.mark.attack("node")
@pytest.mark.usefixtures("asking")
def test_what_a_probe_does_not_return_is_refused(record_refusal: RecordRefusal) -> None:
    with pytest.raises(Malformed, match=r"host\.fan\.turns should be int") as e:
        registry.conforming(replace(healthy("te1"), probed={"host.fan": {"turns": "many"}}))

    record_refusal(e.value)


@pytest.mark.usefixtures("asking")
def test_a_node_that_does_not_know_what_is_asked_or_cannot_tell_is_named() -> None:
    surveys = {
        "te1": replace(healthy("te1"), probed={"host.fan": Fan(turns=3)}),
        "te2": replace(healthy("te2"), unprobed={"host.fan": "[Errno 5] Input/output error"}),
        "te3": healthy("te3"),
    }

    cannot_tell, older = registry.unprobed(nodes(surveys))

    assert (cannot_tell.check, cannot_tell.hosts) == ("fan", ("te2",))
    assert cannot_tell.found.endswith("what host.fan asks cannot be told there: [Errno 5] Input/output error")
    assert (older.check, older.hosts) == ("clusterwright", ("te3",))
    assert older.found.endswith("its clusterwright does not know what is asked for host.fan")


NEW_CHECK = """
from runtime.smoke.host.registry import HostCheck

def probe() -> tuple[str, ...]:
    return ("asked",)

def judge(nodes):
    for host, words in nodes.probed("host.new").items():
        yield nodes.finding("new", host, str(words), "fix")

CHECK = HostCheck(
    id="host.new", names=("new",), place=165, judge=judge, evidence=lambda _: "", probe=probe
)
"""
ASKS_ITSELF = """
import json
from dataclasses import asdict
from runtime.probes import host
from runtime.smoke.checks import CATALOGUE
from runtime.smoke.host import registry
from runtime.untrusted.conform import conform

seen = host.survey((), own_address="127.0.0.1", config_path="/nowhere", probes=registry.probes())
read = registry.conforming(conform(host.Survey, json.loads(json.dumps(asdict(seen)))))
nodes = registry.Nodes(ranks={"te1": (0,)}, surveys={"te1": read})
found = [finding.found for finding in registry.judge(nodes) if finding.check == "new"]
print(json.dumps({"order": list(CATALOGUE), "found": found}))
"""


def test_a_new_file_in_the_folder_is_a_check_that_nodes_are_asked_for(tmp_path: Path) -> None:
    package = tmp_path / "runtime"
    shutil.copytree(Path(registry.__file__).parents[2], package)
    (package / "smoke" / "host" / "new.py").write_text(NEW_CHECK)

    ended = subprocess.run(
        [sys.executable, "-c", ASKS_ITSELF], cwd=tmp_path, capture_output=True, text=True, check=True
    )

    told = json.loads(ended.stdout)
    assert told["found"] == ["te1 (rank 0): ('asked',)"]
    at = told["order"].index("host.new")
    assert told["order"][at - 1 : at + 2] == ["host.clock", "host.new", "host.mtu"]
    assert [name for name in told["order"] if name != "host.new"] == list(CATALOGUE)


def test_every_module_of_the_folder_holds_a_check_and_every_place_is_taken_once() -> None:
    folder = Path(registry.__file__).parent
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__", "registry"}

    checks = registry.host_checks()

    assert len({check.id for check in checks}) == len({check.place for check in checks}) == len(checks)
    assert {check.id.removeprefix("host.").replace("-", "_") for check in checks} >= modules - {"preflight"}
