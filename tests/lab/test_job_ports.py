"""Who is no part of a job does not get to its ports: machines outside the cluster, users without rights.

The machine of the tests has an address in the lab's network and is no node: it is the stranger there.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import pytest

from tests.conftest import RecordRefusal
from tests.lab.conftest import JOB_USER, LabUnderTest
from tests.lab.jobs import nothing_left, python, start, wait_until
from tests.lab.wire import CONNECT, CONNECTED, connect

FOLDER = "/tmp/cw_plane"
# Rank 1 comes late, so that another may come in its place; then both stay until they are told to end.
JOB = f"""
import os, pathlib, time
import runtime, torch, torch.distributed as dist
folder, rank = pathlib.Path({FOLDER!r}), int(os.environ["RANK"])
def wait(name):
    while not (folder / name).exists():
        time.sleep(0.05)
(folder / "port").write_text(os.environ["MASTER_PORT"])
if rank == 1:
    wait("go")
runtime.init_distributed(timeout_seconds=60)
total = torch.ones(1)
dist.all_reduce(total)
(folder / "sum").write_text(str(total.item()))
wait("end")
"""
# What anybody may write who has torch: the job's second rank.
INTRUDER = """
import datetime, sys, torch, torch.distributed as dist
address, port = sys.argv[1:]
print("tries", flush=True)
limit = datetime.timedelta(seconds=8)
where = f"tcp://{address}:{port}"
dist.init_process_group("gloo", init_method=where, rank=1, world_size=2, timeout=limit)
total = torch.full((1,), 1000.0)
dist.all_reduce(total)
print("joined", total.item())
"""
LISTENS = "ss --no-header --listening --tcp --numeric 'sport != :22'"


@pytest.fixture(scope="module")
def waiting_job(converged_lab: LabUnderTest) -> Iterator[LabUnderTest]:
    """A job of te1 and te2 whose second rank has not come yet: one for all tests here."""
    for name, text in (("job.py", JOB), ("intruder.py", INTRUDER)):
        command = f"mkdir -p {FOLDER}; printf %s {shlex.quote(text)} > {FOLDER}/{name}"
        converged_lab.out_of_all(f"{command}; chown {JOB_USER}: {FOLDER}")
    start(converged_lab, f"cd {FOLDER}; zerorun --no-gate --include te1@te2 --log-dir {FOLDER}/log job.py")
    wait_until(converged_lab, "te1", f"test -s {FOLDER}/port")
    yield converged_lab
    converged_lab.out_of_all(f"touch {FOLDER}/go {FOLDER}/end")
    assert nothing_left(converged_lab, 30)
    converged_lab.out_of_all(f"rm -rf {FOLDER}")


@pytest.fixture(scope="module")
def running_job(waiting_job: LabUnderTest) -> LabUnderTest:
    """The same job once both ranks are together, so that Gloo listens as well."""
    waiting_job.run("te2", f"touch {FOLDER}/go")
    wait_until(waiting_job, "te1", f"test -s {FOLDER}/sum")
    return waiting_job


def listened(lab: LabUnderTest, node: str) -> list[tuple[str, int]]:
    """Addresses and ports on which the node's programs listen, but for sshd."""
    lines = lab.out(node, LISTENS).splitlines()
    return [(address, int(port)) for address, _, port in (line.split()[3].rpartition(":") for line in lines)]


def connect_as(lab: LabUnderTest, user: str, node: str, target: str, port: int) -> str:
    """What a user of a node does."""
    return lab.out(node, f"runuser -u {user} -- python3 -c {shlex.quote(CONNECT)} {target} {port}")


@pytest.mark.attack("network")
def test_nobody_joins_a_job_in_a_rank_s_place(
    waiting_job: LabUnderTest, record_refusal: RecordRefusal
) -> None:
    address, port = waiting_job.address("te1"), waiting_job.out("te1", f"cat {FOLDER}/port")
    variables = "env GLOO_SOCKET_IFNAME=eth0 TORCHELASTIC_USE_AGENT_STORE=True"
    words = f"{python(waiting_job)} {FOLDER}/intruder.py {address} {port}"

    attack = waiting_job.run("te3", f"cd /tmp; runuser -u nobody -- {variables} {words}", check=False)
    waiting_job.run("te2", f"touch {FOLDER}/go")
    wait_until(waiting_job, "te1", f"test -s {FOLDER}/sum")

    record_refusal(attack.stderr.strip().splitlines()[-1])
    assert attack.stdout.strip() == "tries"
    assert waiting_job.out("te1", f"cat {FOLDER}/sum") == "2.0"


@pytest.mark.attack("network")
def test_a_job_listens_on_the_cluster_s_address_alone(
    running_job: LabUnderTest, record_refusal: RecordRefusal
) -> None:
    addresses = {address for node in ("te1", "te2") for address, _ in listened(running_job, node)}

    record_refusal(f"ss: listens on {', '.join(sorted(addresses))}")
    assert addresses == {running_job.address("te1"), running_job.address("te2")}


def test_two_jobs_do_not_meet_on_one_port(running_job: LabUnderTest) -> None:
    first = running_job.out("te1", f"cat {FOLDER}/port")
    words = f"--no-gate --include te1@te2 --log-dir {FOLDER}/other --no-python printenv MASTER_PORT"

    finished = running_job.run("te1", f"cd /; zerorun {words}", check=False)

    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.strip() != first


@pytest.mark.attack("network")
def test_a_machine_that_is_no_node_reaches_no_port_of_a_job(
    running_job: LabUnderTest, record_refusal: RecordRefusal
) -> None:
    ports = {node: [port for _, port in listened(running_job, node)] for node in ("te1", "te2")}

    seen = [connect(running_job.address(node), port) for node, held in ports.items() for port in held]

    for words in seen:
        record_refusal(words)
    assert len(ports["te1"]) >= 2  # the meeting point, and Gloo
    assert ports["te2"]
    assert CONNECTED not in seen


@pytest.mark.attack("user")
def test_a_user_without_rights_reaches_no_port_of_a_job(
    running_job: LabUnderTest, record_refusal: RecordRefusal
) -> None:
    address = running_job.address("te1")
    ports = [port for _, port in listened(running_job, "te1")]

    for node in ("te1", "te2", "te3"):
        seen = [connect_as(running_job, "nobody", node, address, port) for port in ports]
        record_refusal(f"nobody on {node}: {seen[0]}")
        assert CONNECTED not in seen
    assert all(
        connect_as(running_job, "root", node, address, ports[0]) == CONNECTED
        for node in ("te1", "te2", "te3")
    )
