"""What surveys say against nodes: one change of a healthy cluster at a time."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runtime.edges import process
from runtime.probes import host
from runtime.probes.gpu import Gpus
from runtime.probes.host import Files, Survey
from runtime.smoke.checks import CATALOGUE
from runtime.smoke.host.host_checks import (
    Clock,
    Written,
    changed_files,
    evidence,
    judge_hosts,
    not_applicable,
    slow_disks,
    slow_processors,
)
from runtime.untrusted.conform import conform

NAMES = {"te1": "10.0.0.1", "te2": "10.0.0.2", "te3": "10.0.0.3", "te4": "10.0.0.4"}


def healthy(host: str) -> Survey:
    return Survey(
        hostname=host,
        own_address=NAMES[host],
        addresses_by_name=NAMES,
        interface="eth0",
        job_interface="eth0",
        job_address=f"{NAMES[host]}/24",
        mtu=1500,
        speed_bits=0,
        rdma=False,
        rdma_ports=(),
        open_files=1 << 20,
        locked_bytes=8 << 20,
        shared_memory_free=1 << 30,
        free_bytes={"/": 10 << 30, "/data": 10 << 30},
        free_files={"/": 10**6},
        kernel="6.1.0-42-amd64",
        processors=8,
        memory_bytes=64 << 30,
        environment="d" * 64,
        cuda="13.0.96",
        nccl="2.28.9",
        gpus=Gpus(present=False, problem="", driver="", cards=(), xids=None),
    )


def cluster(**changes: Any) -> dict[str, Survey]:
    """Four healthy nodes, the third changed."""
    surveys = {host: healthy(host) for host in NAMES}
    return surveys | {"te3": replace(surveys["te3"], **changes)}


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
    (said,) = judge_hosts(cluster(**changes), {})

    assert (said.host, said.check) == ("te3", check)
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
    assert judge_hosts(cluster(**changes), {}) == ()


def every_job_on(interface: str, *addresses: str) -> dict[str, Survey]:
    return {
        host: replace(healthy(host), job_interface=interface, job_address=address)
        for host, address in zip(NAMES, addresses, strict=True)
    }


def test_a_bridge_that_every_node_has_for_itself_is_named_on_each() -> None:
    said = judge_hosts(every_job_on("docker0", *["172.17.0.1/16"] * 4), {})

    assert [(one.check, one.host) for one in said] == [("interface", host) for host in NAMES]
    assert "172.17.0.1/16 te2, te3, te4 has as well" in said[0].found


@pytest.mark.parametrize(
    "addresses",
    [
        ("10.1.0.1/24", "10.1.0.2/24", "10.1.0.3/24", "10.1.0.4/24"),
        ("10.1.0.1/32", "10.1.0.2/32", "10.1.0.3/32", "10.1.0.4/32"),
    ],
)
def test_a_second_network_for_data_routed_or_not_is_left_alone(addresses: tuple[str, ...]) -> None:
    assert judge_hosts(every_job_on("eth1", *addresses), {}) == ()


def test_files_that_were_changed_are_named_and_so_is_what_cannot_be_told() -> None:
    changed = ("changed torch/a.py", "missing torch/b.py", "extra torch/c.py")
    said = changed_files(
        {
            "te1": Files(known=True),
            "te2": Files(known=True, different=5, first=changed),
            "te3": Files(known=False),
            "te4": Files(known=True, problem="gave no answer in 30 s"),
        }
    )

    found = {one.host: one.found for one in said}
    assert list(found) == ["te2", "te3", "te4"]
    assert "no record" in found["te3"]
    assert found["te2"].endswith("changed torch/a.py, missing torch/b.py, extra torch/c.py and 2 more")
    assert "gave no answer in 30 s" in found["te4"]


def test_an_environment_tells_which_of_its_files_were_changed(tmp_path: Path) -> None:
    script = Path(__file__).parents[5] / "playbooks/roles/conda_env/files/environment_digest.py"
    file = tmp_path / "lib" / "a.py"
    file.parent.mkdir()
    file.write_text("as installed")

    def look(prefix: Path) -> Files:
        return host.files(str(prefix), script=script, timeout_seconds=20)

    assert look(tmp_path) == Files(known=False)
    process.complete(
        [sys.executable, str(script), "--prefix", str(tmp_path), "--record", "--built-from", "a test"]
    )
    assert look(tmp_path) == Files(known=True, different=0, first=[])
    file.write_text("by hand")
    assert look(tmp_path) == Files(known=True, different=1, first=["changed lib/a.py"])
    (tmp_path / ".clusterwright" / "record.json").write_text("[]")
    assert "AttributeError" in look(tmp_path).problem
    assert host.files(str(tmp_path), script=tmp_path / "none", timeout_seconds=20) == Files(known=False)


def test_a_machine_alone_may_call_itself_loopback() -> None:
    alone = {"te1": replace(healthy("te1"), own_address="127.0.1.1")}

    assert judge_hosts(alone, {}) == ()


@pytest.mark.parametrize(
    ("offset", "error", "named"),
    [(2.0, 0.01, True), (-2.0, 0.01, True), (0.4, 0.01, False), (2.0, 1.8, False)],
)
def test_a_clock_is_wrong_only_beyond_what_the_way_explains(offset: float, error: float, named: bool) -> None:
    clocks = {host: Clock(offset=0.001, error=0.01) for host in NAMES} | {
        "te3": Clock(offset=offset, error=error)
    }

    said = judge_hosts(cluster(), clocks)

    assert [one.host for one in said] == (["te3"] if named else [])
    assert all(("ahead" if offset > 0 else "behind") in one.found for one in said)


def test_a_slow_processor_is_named_with_the_others_rate() -> None:
    (said,) = slow_processors({"te1": 2e8, "te2": 2.1e8, "te3": 3e7, "te4": 1.9e8})

    assert (said.check, said.host) == ("compute", "te3")
    assert "hashes 30 MB/s, the others' 200 MB/s" in said.found


def test_evidence_belongs_to_checks_that_exist_and_what_has_no_object_is_skipped() -> None:
    surveys = cluster()

    files = {"te1": Files(known=True)}

    assert set(evidence(surveys, {"te1": Clock(offset=0, error=0)}, files)) <= set(CATALOGUE)
    assert evidence({}, {}, {}) == {}
    assert not_applicable(surveys, files) == {"host.locked-memory": "no RDMA device on any node"}
    assert "host.nccl" in not_applicable({"te1": replace(healthy("te1"), nccl="")}, files)
    assert "host.files" in not_applicable(surveys, {"te1": Files(known=False)})


def test_this_machine_answers_a_survey_and_it_crosses_a_channel() -> None:
    seen = host.survey(("localhost", "no-such-name.invalid"), own_address="127.0.0.1", config_path="/nowhere")

    plain = json.dumps(host.to_json(seen))
    assert json.dumps(host.to_json(conform(host.Survey, json.loads(plain)))) == plain
    assert (seen.interface, seen.environment, seen.speed_bits) == ("lo", "", 0)
    assert (seen.job_interface, seen.job_address) == ("lo", "127.0.0.1/8")
    assert seen.addresses_by_name == {"localhost": "127.0.0.1", "no-such-name.invalid": ""}
    assert seen.free_bytes["/"] > 0
    assert seen.processors >= 1
    assert host.compute_rate(0.01) > 0


def wrote(*rates: float) -> dict[str, Written]:
    return {f"te{number}": Written(rate=rate, problem="") for number, rate in enumerate(rates, start=1)}


def test_a_disk_is_slow_where_it_takes_a_quarter_of_what_the_others_take() -> None:
    (said,) = slow_disks(wrote(4e8, 5e6, 9e8, 5e8))

    assert (said.check, said.host) == ("disk write", "te2")
    assert said.found == "its disk writes 5 MB/s, the others' 500 MB/s"


@pytest.mark.parametrize("rates", [(4e8, 1.5e8, 5e8), (1e6, 9e8), (1e6,), ()])
def test_disks_that_differ_as_disks_do_or_have_too_few_to_compare_with_are_left_alone(
    rates: tuple[float, ...],
) -> None:
    assert list(slow_disks(wrote(*rates))) == []


def test_a_disk_that_takes_no_file_is_named_with_the_reason() -> None:
    disks = {**wrote(4e8), "te2": Written(rate=0.0, problem="/data: Read-only file system")}

    (said,) = slow_disks(disks)

    assert (said.host, said.found) == ("te2", "cannot write to /data: Read-only file system")


@pytest.mark.parametrize(
    ("lines", "interface"),
    [
        ("GLOO_SOCKET_IFNAME=no-such0\nNCCL_SOCKET_IFNAME==no-such0", "no-such0"),
        ("NCCL_SOCKET_IFNAME==no-such1,lo", "no-such1"),
        ("NCCL_SOCKET_IFNAME=eth", "lo"),
        ("NCCL_SOCKET_IFNAME=^docker0", "lo"),
        ("no line", "lo"),
    ],
)
def test_the_interface_of_jobs_is_what_job_env_names_exactly(
    tmp_path: Path, lines: str, interface: str
) -> None:
    (tmp_path / "job.env").write_text(lines)

    seen = host.survey((), own_address="127.0.0.1", config_path=str(tmp_path))

    assert seen.job_interface == interface
    assert bool(seen.job_address) == (interface == "lo")
