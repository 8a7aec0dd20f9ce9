"""zerorun on real nodes: ssh, real host names, and an end everywhere."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator

import pytest

from tests.lab.conftest import JOB_USER, LabUnderTest
from tests.lab.jobs import cut_off, nothing_left, start, wait_for_ssh, wait_until

HOSTILE = ["a b", "it's", '"q"', "$(touch /gone)", "$$", "${local_rank}", "; reboot", "*"]
SHOW = """
import json, os, socket, sys
names = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
print(json.dumps([socket.gethostname(), sys.argv[1:], {name: os.environ.get(name) for name in names}]))
"""
# Where a job ends, a node that is struck and the launcher's tell all that four would.
PAIR = ("te1", "te3")
STUBBORN_JOB = f"zerorun --no-gate --include {'@'.join(PAIR)} --log-dir /tmp/cw_test/job stubborn.py"
# A rank that ignores the polite signal and has a child in a session of its own.
STUBBORN = """
import signal, subprocess, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen(["sleep", "314"], start_new_session=True)
time.sleep(300)
"""
BOOM = """
import os, time
if os.environ["RANK"] == "2": raise ValueError("boom")
time.sleep(300)
"""
# A training job that never ends: ZeRO-3 over all nodes, collectives limited to 8 s.
TRAINING = """
import runtime, torch
runtime.init_distributed(timeout_seconds=8)
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 1))
engine, *_ = runtime.initialize(model=model, model_parameters=model.parameters(), config={
    "train_micro_batch_size_per_gpu": 1,
    "zero_optimization": {"stage": 3},
    "optimizer": {"type": "AdamW", "params": {"lr": 1e-3}},
})
while True:
    engine.backward(engine(torch.ones(1, 8)).mean())
    engine.step()
    if engine.global_steps == 5:
        print("steady", flush=True)
"""
# As people write it for DeepSpeed's launcher.
THEIRS = """
import argparse, torch.distributed as dist
parser = argparse.ArgumentParser()
parser.add_argument("--local_rank", type=int, default=-1)
parser.add_argument("--deepspeed_config")
args = parser.parse_args()
dist.init_process_group("gloo")
dist.barrier()
print(dist.get_rank(), args.local_rank, args.deepspeed_config, open("words").read(), flush=True)
dist.destroy_process_group()
"""
GIGABYTE = """
import sys
for _ in range(1000):
    sys.stdout.write(("x" * 99 + "\\n") * 10_000)
"""


@pytest.fixture
def cluster(converged_lab: LabUnderTest) -> Iterator[LabUnderTest]:
    """The lab with a folder of scripts on every node."""
    writing = [
        f"printf %s {shlex.quote(text)} > '/tmp/cw_test/{name}.py'"
        for name, text in {"show": SHOW, "stubborn": STUBBORN, "boom": BOOM, "training": TRAINING}.items()
    ]
    own = f"chown -R {JOB_USER}: /tmp/cw_test"
    converged_lab.out_of_all(" && ".join(["mkdir -p /tmp/cw_test", *writing, own]))
    yield converged_lab
    leftovers = "pkill -KILL -f '[r]untime.(launch|node)|[s]leep 314' || true"
    converged_lab.out_of_all(f"{leftovers}; rm -rf /tmp/cw_test")


def zerorun(cluster: LabUnderTest, *words: str, timeout_seconds: float = 90) -> tuple[int, str, str]:
    command = f"cd /tmp/cw_test && zerorun --no-gate --log-dir /tmp/cw_test/job {shlex.join(words)}"
    finished = cluster.run("te1", command, timeout_seconds=timeout_seconds, check=False)
    return finished.returncode, finished.stdout, finished.stderr


def test_every_node_runs_its_rank_with_the_words_as_given(cluster: LabUnderTest) -> None:
    status, out, err = zerorun(cluster, "show.py", *HOSTILE)

    assert status == 0, err
    assert out.count("\n") == 1
    logs = cluster.out_of_all("cat /tmp/cw_test/job/logs/rank*.log")
    for rank, log in enumerate(logs):
        name, words, variables = json.loads(log)
        assert (name, words) == (f"te{rank + 1}", HOSTILE)
        assert variables == {
            "RANK": str(rank),
            "WORLD_SIZE": "4",
            "MASTER_ADDR": cluster.address("te1"),
            "GLOO_SOCKET_IFNAME": "eth0",
            "NCCL_SOCKET_IFNAME": "=eth0",
        }
    assert nothing_left(cluster)


def test_a_job_may_start_from_a_node_that_is_not_the_first(cluster: LabUnderTest) -> None:
    command = "cd /tmp/cw_test && zerorun --no-gate --log-dir /tmp/cw_test/job --include te2@te1 show.py"

    finished = cluster.run("te3", command, check=False)

    assert finished.returncode == 0, finished.stderr
    assert json.loads(finished.stdout)[0] == "te1"


def test_the_node_and_rank_that_failed_first_are_named(cluster: LabUnderTest) -> None:
    status, _, err = zerorun(cluster, "boom.py")

    assert status == 1
    assert "rank 2 on te3 ended with status 1: ValueError: boom" in err
    assert "/tmp/cw_test/job/logs/rank2.log on te3" in err
    assert nothing_left(cluster)


@pytest.mark.parametrize("signals", ["INT INT", "KILL"])
def test_no_node_keeps_a_process_when_the_launcher_ends(cluster: LabUnderTest, signals: str) -> None:
    launcher = start(cluster, f"cd /tmp/cw_test; exec {STUBBORN_JOB}")
    for node in PAIR:
        wait_until(cluster, node, "pgrep -x -f 'sleep 314' >/dev/null")

    for name in signals.split():
        cluster.run("te1", f"kill -{name} {launcher}; sleep 0.5")

    assert nothing_left(cluster)
    assert cluster.out_of_all("pgrep -cx -f 'sleep 314' || true") == ["0"] * 4


def test_a_node_that_loses_its_power_ends_the_job(cluster: LabUnderTest) -> None:
    start(cluster, f"cd /tmp/cw_test; {STUBBORN_JOB}; echo status $?")
    wait_until(cluster, "te3", "pgrep -x -f 'sleep 314' >/dev/null")

    cluster.power_off("te3")
    try:
        wait_until(cluster, "te1", "grep -q '^status' /tmp/out", 50)
        out = cluster.out("te1", "cat /tmp/out")
    finally:
        cluster.power_on("te3")

    assert "te3 was lost" in out
    assert out.endswith("status 1")
    assert nothing_left(cluster)


def test_what_differs_is_named_on_every_node_before_anything_starts(cluster: LabUnderTest) -> None:
    cluster.run("te2", "echo '# edited' >> /tmp/cw_test/show.py")
    cluster.run("te4", "rm /tmp/cw_test/show.py")

    status, _, err = zerorun(cluster, "show.py")

    assert status == 1
    assert "te2 (rank 1): has another show.py" in err
    assert "te4 (rank 3): there is no show.py in /tmp/cw_test" in err
    assert cluster.run("te1", "ls /tmp/cw_test/job", check=False).returncode != 0


def test_deepspeed_s_own_words_start_a_job_with_code_that_lies_on_one_node(cluster: LabUnderTest) -> None:
    """And no rank waits for the name of the address at which they meet, or is warned by c10d."""
    cluster.run(
        "te1", f"cd /tmp/cw_test && printf %s {shlex.quote(THEIRS)} > theirs.py && printf new > words"
    )
    cluster.run("te1", f"cd /tmp/cw_test && echo big > .gitignore && echo 1 > big; chown -R {JOB_USER}: .")
    cluster.run("te3", f"printf old > /tmp/cw_test/words; chown {JOB_USER}: /tmp/cw_test/words")
    words = (
        "--sync --tee all --num_nodes=3 --num_gpus=1 --master_addr=te1 theirs.py --deepspeed_config ds.json"
    )

    status, out, err = zerorun(cluster, *words.split())

    assert status == 0, err
    said = sorted(line.partition("] ")[2] or line for line in out.splitlines())
    assert said == [f"{rank} 0 ds.json new" for rank in range(3)]
    assert "socket.cpp" not in out + err
    assert "te2: files brought: 3" in err
    assert cluster.out("te3", "cat /tmp/cw_test/words /tmp/cw_test/job/replaced/words") == "newold"
    assert cluster.out("te3", "stat -c %a /tmp/cw_test/job; ls /tmp/cw_test").split()[0] == "700"
    cluster.run("te3", "test ! -e /tmp/cw_test/big")
    cluster.run("te4", "test ! -e /tmp/cw_test/words")

    status, _, err = zerorun(cluster, "--sync", "--exclude", "te4", "theirs.py", "--nonsense")
    assert "te2: files brought: 0" in err
    status, _, err = zerorun(cluster, "--num_nodes=2", "--autotuning", "run", "theirs.py")
    assert (status, "there is no autotuner here" in err) == (2, True)


@pytest.mark.long  # a gigabyte on the nodes' disk; test_log_tail has the part that decides
def test_a_rank_that_prints_a_gigabyte_is_not_held_up_and_all_of_it_is_kept(cluster: LabUnderTest) -> None:
    cluster.out_of_all(f"printf %s {shlex.quote(GIGABYTE)} > /tmp/cw_test/gigabyte.py")

    status, out, err = zerorun(
        cluster, "--include", "te1@te3", "--tee", "1", "gigabyte.py", timeout_seconds=300
    )

    assert status == 0, err
    assert "MiB of output are left out here: /tmp/cw_test/job/logs/rank1.log has all of it" in out
    assert len(out) < 1 << 28
    assert cluster.out("te3", "stat -c %s /tmp/cw_test/job/logs/rank1.log") == "1000000000"


def test_a_stranger_s_host_key_is_refused_by_name(cluster: LabUnderTest) -> None:
    address = cluster.address("te4")
    cluster.run("te1", f"cp /etc/hosts /tmp/hosts.kept; echo '{address} te9' >> /etc/hosts")
    cluster.run("te1", "(cat /etc/clusterwright/hostfile; echo te9 slots=1) > /tmp/cw_test/hosts")
    try:
        status, _, err = zerorun(cluster, "--hostfile", "hosts", "show.py")
    finally:
        cluster.run("te1", "cat /tmp/hosts.kept > /etc/hosts")

    assert status == 1
    assert "te9 (rank 4): its host key was refused" in err


# Ninety seconds. The gate has a node that loses its power, and a silent launcher (test_node_parts).
@pytest.mark.long
def test_a_node_that_loses_its_network_ends_its_part_by_itself(cluster: LabUnderTest) -> None:
    """Neither side is told: the launcher's ssh gives the node up, and the node its silent launcher."""
    start(cluster, f"cd /tmp/cw_test; {STUBBORN_JOB}; echo status $?")
    wait_until(cluster, "te3", "pgrep -x -f 'sleep 314' >/dev/null")
    counting = "i=0; while pgrep -x -f 'sleep 314' >/dev/null; do sleep 1; i=$((i+1)); done; echo $i"
    cluster.run("te3", f"bash -c {shlex.quote(counting)} >/tmp/gone 2>&1 </dev/null &")

    cut_off(cluster, "te3", 80)
    wait_until(cluster, "te1", "grep -q '^status' /tmp/out", 50)
    wait_for_ssh(cluster, "te3")
    wait_until(cluster, "te3", "test -s /tmp/gone", 60)

    assert "te3 was lost" in cluster.out("te1", "cat /tmp/out")
    assert 40 < int(cluster.out("te3", "cat /tmp/gone")) < 75
    assert nothing_left(cluster)


@pytest.mark.measures
def test_a_stopped_rank_of_a_training_job_is_named_in_time(cluster: LabUnderTest) -> None:
    job = "/tmp/cw_test/job"
    start(cluster, f"cd /tmp/cw_test && zerorun --no-gate --log-dir {job} training.py")
    for number, node in enumerate(cluster.nodes):
        wait_until(cluster, node, f"grep -qs steady {job}/logs/rank{number}.log")

    stopped_at = float(cluster.out("te3", f"kill -STOP $(cat {job}/logs/rank2.pid) && date +%s.%N"))
    wait_until(cluster, "te1", f"[ -e {job}/job.json ]")
    named_at, _, account = cluster.out("te1", f"stat -c %.9Y {job}/job.json && cat {job}/job.json").partition(
        "\n"
    )

    assert float(named_at) - stopped_at < 8 + 2
    words = "rank 2 on te3 is stopped (SIGSTOP or a debugger), while ranks 0, 1, 3 waited for it in vain"
    assert json.loads(account)["cause"] == words
    assert words in cluster.out("te1", "cat /tmp/out")
    # A stopped process does not end politely: it is killed after the grace of 10 s.
    assert nothing_left(cluster, 20)
