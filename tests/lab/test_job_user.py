"""Jobs run as a user without rights, who alone has the cluster's key; who had it before has it no more."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator

import pytest

from tests.conftest import RecordRefusal
from tests.lab.conftest import JOB_USER, JOBS, Finished, LabUnderTest, changed, playbook

TRUST = ("--tags", "node_access,host_names,job_user,ssh_trust")
AS_ROOT = ("-e", "cluster_user=root")
SSH = "ssh -o BatchMode=yes -o StrictHostKeyChecking=yes -o ConnectTimeout=5"
FOLDER = f"{JOBS}/attack"
# What a job's script may try on a node, each a command that must fail.
TRIES = {
    "the records of site.yml": "cat /var/lib/clusterwright/journal.json",
    "the node's own key": "cat /etc/ssh/ssh_host_ed25519_key",
    "the passwords": "cat /etc/shadow",
    "the home of root": "ls /root",
    "a way to root": "sudo -n true",
    "root by su": "su -c true </dev/null",
    "root on another node": f"{SSH} root@te2 true",
    "root on this node": f"{SSH} root@te1 true",
    "the rules of the firewall": "/usr/sbin/nft delete table inet clusterwright",
    "who may sign": "mv /etc/clusterwright/signers /etc/clusterwright/x",
    "who runs jobs": "echo '{}' > /etc/clusterwright/cluster.json",
    "the hosts of jobs": "rm -f /etc/clusterwright/hostfile",
    "the environment": "touch /data/miniconda3/envs/torch/lib/x",
    "the programs of the environment": "touch /data/miniconda3/envs/torch/bin/zerorun",
    "the disk of others": "mkdir /data/mine",
}
TRY = f"""
import json, os, subprocess
tries = json.loads({json.dumps(TRIES)!r})
got = [name for name, words in tries.items() if subprocess.run(["sh", "-c", words]).returncode == 0]
print(json.dumps([os.environ["RANK"], os.getresuid(), os.getgroups(), os.environ["HOME"], got]))
"""


@pytest.fixture
def attacker(converged_lab: LabUnderTest) -> Iterator[LabUnderTest]:
    """The lab with a script of the user on every node."""
    writing = f"mkdir -p {FOLDER} && printf %s {shlex.quote(TRY)} > {FOLDER}/try.py"
    for node in converged_lab.nodes:
        converged_lab.run(node, writing, user=JOB_USER)
    yield converged_lab
    converged_lab.out_of_all(f"rm -rf {FOLDER}")


@pytest.mark.attack("user")
def test_a_job_is_not_root_and_does_not_become_root_here_or_elsewhere(
    attacker: LabUnderTest, record_refusal: RecordRefusal
) -> None:
    """Started by root, who goes on as the user: every try must fail on every node."""
    finished = attacker.run("te1", f"cd {FOLDER}; zerorun --no-gate --tee all try.py", check=False)

    assert finished.returncode == 0, finished.stderr
    assert f"zerorun: goes on as {JOB_USER}" in finished.stderr
    record_refusal("; ".join(line for line in finished.stdout.splitlines() if "denied" in line[:200]))
    told = [json.loads(line[line.index('["') :]) for line in finished.stdout.splitlines() if '["' in line]
    assert sorted(rank for rank, *_ in told) == [str(rank) for rank in range(len(attacker.nodes))]
    assert [got for *_, got in told] == [[]] * len(attacker.nodes)
    assert {(tuple(ids), tuple(groups), home) for _, ids, groups, home, _ in told} == {
        ((2600,) * 3, (2600,), f"/home/{JOB_USER}")
    }
    assert attacker.out("te1", f"{SSH} te2 hostname", user=JOB_USER) == "te2"


@pytest.mark.attack("node")
def test_root_of_one_node_has_no_key_to_another(
    converged_lab: LabUnderTest, record_refusal: RecordRefusal
) -> None:
    refused = converged_lab.run("te1", f"{SSH} te2 hostname", check=False)
    record_refusal(refused.stderr)

    assert "Permission denied" in refused.stderr
    assert converged_lab.run("te1", "ls /root/.ssh/clusterwright_ed25519", check=False).returncode != 0


def test_a_script_of_root_s_home_is_refused_with_where_to_put_it(converged_lab: LabUnderTest) -> None:
    finished = converged_lab.run("te1", "cd /root; touch own.py; zerorun --no-gate own.py", check=False)
    converged_lab.run("te1", "rm /root/own.py")

    assert finished.returncode == 1
    assert f"goes on as {JOB_USER}, who runs the jobs of this cluster, in /home/{JOB_USER}" in finished.stderr
    assert "te1 (rank 0): there is no own.py in" in finished.stderr
    assert "the folder jobs/USER on the data disk" in finished.stderr


def converge(lab: LabUnderTest, *words: str, check: bool = True) -> Finished:
    return playbook(lab, *TRUST, *words, check=check)


@pytest.fixture(scope="module")
def of_yesterday(mirror: None, spare_lab: LabUnderTest) -> LabUnderTest:
    """Nodes whose user is root, with a person's key behind ours."""
    spare_lab.reset()
    converge(spare_lab, *AS_ROOT)
    spare_lab.out_of_all("echo 'ssh-rsa AAAA a person' >> /root/.ssh/authorized_keys")
    return spare_lab


def test_a_site_that_comes_in_by_the_cluster_s_key_is_refused_by_name(of_yesterday: LabUnderTest) -> None:
    lab = of_yesterday
    secret = lab.lab.folder / "secrets" / "cluster_key"
    by_cluster_key = ("-e", json.dumps({"ansible_ssh_private_key_file": str(secret)}))
    public = (lab.lab.folder / "secrets" / "cluster_key.pub").read_text().strip()
    lab.out_of_all(
        "cp -p ~/.ssh/authorized_keys /root/kept; "
        f"sed -i '/clusterwright/d' ~/.ssh/authorized_keys; echo '{public}' >> ~/.ssh/authorized_keys"
    )
    before = lab.out_of_all("cat /root/.ssh/*")

    refused = converge(lab, *by_cluster_key, check=False)
    after = lab.out_of_all("cat /root/.ssh/*")
    lab.out_of_all("mv /root/kept ~/.ssh/authorized_keys")

    assert refused.returncode != 0
    assert "you log in with the cluster's key" in " ".join(refused.stdout.split())
    assert after == before


def test_root_s_line_and_key_go_and_those_of_people_stay(of_yesterday: LabUnderTest) -> None:
    lab = of_yesterday
    before = lab.out("te2", "cat /root/.ssh/authorized_keys").splitlines()
    foreseen = converge(lab, "--check")
    untouched = lab.out("te2", "cat /root/.ssh/authorized_keys").splitlines()

    first, again = converge(lab), converge(lab)

    ours = [line for line in before if "clusterwright" in line]
    assert len(ours) == 1
    assert all(changed(foreseen).values())
    assert untouched == before
    kept = [line for line in before if line not in ours]
    assert lab.out("te2", "cat /root/.ssh/authorized_keys").splitlines() == kept
    assert lab.out("te2", "ls /root/.ssh") == "authorized_keys"
    assert lab.out("te2", f"cat ~{JOB_USER}/.ssh/authorized_keys").splitlines() == ours
    assert all(changed(first).values())
    assert not any(changed(again).values())
    assert "Permission denied" in lab.run("te1", f"{SSH} te2 true", check=False).stderr
    assert lab.out("te1", f"{SSH} te2 hostname", user=JOB_USER) == "te2"
    converge(lab, *AS_ROOT)
    assert lab.out("te1", f"{SSH} te2 hostname") == "te2"
    assert lab.out("te2", f"ls -A ~{JOB_USER}/.ssh 2>/dev/null; true") == ""


def test_somebody_else_s_account_is_refused_and_stays(mirror: None, spare_lab: LabUnderTest) -> None:
    theirs = "cat /etc/passwd /etc/group; ls /home /root/.ssh"
    spare_lab.reset()
    spare_lab.run("te1", "useradd -u 1500 trainer")
    spare_lab.run("te2", "useradd -u 2600 ann")
    before = spare_lab.out_of_all(theirs)

    refused = playbook(spare_lab, "--tags", "job_user", check=False)

    said = " ".join(refused.stdout.split())
    assert "te1: there is a user trainer with the number 1500" in said
    assert "te2: the number 2600 is ann's" in said
    assert spare_lab.out_of_all(theirs) == before


def test_a_group_of_theirs_stays_and_each_user_of_jobs_goes_with_the_teardown(
    spare_lab: LabUnderTest,
) -> None:
    theirs = "cat /etc/passwd /etc/group; ls /home"
    spare_lab.reset()
    spare_lab.out_of_all("useradd ann; groupadd -g 1700 first; gpasswd -a ann first; groupadd -g 2700 second")
    before = spare_lab.out_of_all(theirs)

    for name, uid in (("first", 1700), ("second", 2700), ("third", 3700)):
        variables = json.dumps({"cluster_user": name, "job_user_uid": uid})
        playbook(spare_lab, "--tags", "job_user", "-e", variables)
    among = spare_lab.out("te1", "id -nG third; cat /var/lib/clusterwright/job_user")
    playbook(spare_lab, "playbooks/teardown.yml", "-e", f"teardown_confirm={spare_lab.name}")

    assert among.splitlines() == ["third", "first 1700 group", "second 2700 group", "third 3700"]
    assert spare_lab.out_of_all(theirs) == before


def test_a_folder_that_is_closed_to_the_user_of_jobs_is_named(mirror: None, spare_lab: LabUnderTest) -> None:
    spare_lab.reset()
    spare_lab.run("te1", "install -d -m 700 /data/jobs; echo theirs >/data/jobs/theirs")
    before = spare_lab.out("te1", "ls -lR /data")

    refused = playbook(spare_lab, "--tags", "job_user,runtime", check=False)

    said = " ".join(refused.stdout.split())
    assert "te1: run jobs as trainer in /data/jobs/trainer" in said
    assert "it may not enter /data/jobs. Nothing of that was changed" in said
    assert spare_lab.out("te1", "ls -lR /data") == before
