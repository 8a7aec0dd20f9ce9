"""Sites as people reach them: another port, a jump host, sudo that asks, groups of groups, an agent."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.lab.conftest import JOB_USER, Finished, LabUnderTest, changed, made, playbook, provision

TRUST = ("--tags", "node_access,host_names,ssh_trust,sshd_policy")
PORT = 2222
# What only root can do goes through a sudo that asks for this password.
UBUNTU = (
    "useradd --create-home --shell /bin/bash ubuntu; echo ubuntu:x1y2z3 | chpasswd; "
    "echo 'ubuntu ALL=(ALL:ALL) ALL' > /etc/sudoers.d/ubuntu; "
    "install -d -o ubuntu -g ubuntu -m 700 ~ubuntu/.ssh; "
    "install -o ubuntu -g ubuntu -m 600 ~/.ssh/authorized_keys ~ubuntu/.ssh/authorized_keys"
)
PASSWORD = "x1y2z3"
SSHD = "/etc/ssh/sshd_config"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """A lab whose te1 listens at another port, and whose te2 lets nobody in who does not come through te1."""

    lab: LabUnderTest
    folder: Path
    config: Path

    @property
    def inventory(self) -> str:
        return str(self.lab.inventory)

    def write(self, **variables: Any) -> None:
        """The site, in groups of groups; te2 is reached by the ssh config's jump host."""
        text = (
            "[cluster:children]\nracks\n[racks:children]\nrack_a\nrack_b\n"
            f"[rack_a]\nte1 ansible_host={self.lab.address('te1')} ansible_port={PORT}\n"
            f"[rack_b]\nte2 ansible_host={self.lab.address('te2')}\n"
            f'te2 ansible_ssh_common_args="-F {self.config} -J gate"\n'
        )
        (self.lab.inventory / "hosts").write_text(text)
        (self.lab.inventory / "hosts.yml").unlink(missing_ok=True)
        own = {
            "ansible_user": "ubuntu",
            "ansible_become": True,
            "ansible_become_password": PASSWORD,
            "ansible_ssh_common_args": f"-F {self.config}",
        }
        wanted = {name: value for name, value in {**own, **variables}.items() if value is not None}
        (self.lab.inventory / "group_vars" / "all" / "site.yml").write_text(json.dumps(wanted))

    def sudo(self, node: str, command: str) -> str:
        """What a command prints as root, over the controller's own ssh."""
        target = ["gate"] if node == "te1" else ["-J", "gate", f"ubuntu@{self.lab.address(node)}"]
        ask = f"echo {PASSWORD} | sudo -S -p '' sh -c {shlex.quote(command)}"
        words = ["ssh", "-F", str(self.config), "-o", "BatchMode=yes", *target, ask]
        finished = subprocess.run(
            words, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL
        )
        assert finished.returncode == 0, finished.stderr
        return finished.stdout.strip()


@pytest.fixture(scope="module")
def conn_lab(lab_machine: None) -> Iterator[LabUnderTest]:
    yield from made("conn", "10.77.241.0/24", 2)


@pytest.fixture
def conn(conn_lab: LabUnderTest) -> Iterator[LabUnderTest]:
    """Two blank nodes and the lab's own inventory, which comes back."""
    conn_lab.reset()
    hosts = (conn_lab.inventory / "hosts.yml").read_text()
    yield conn_lab
    (conn_lab.inventory / "hosts").unlink(missing_ok=True)
    (conn_lab.inventory / "group_vars" / "all" / "site.yml").unlink(missing_ok=True)
    (conn_lab.inventory / "hosts.yml").write_text(hosts)


def known_at(lab: LabUnderTest, node: str, port: int) -> str:
    """The lines of known_hosts by which a node is known once its sshd has another port."""
    lines = (line.split(" ", 1) for line in lab.lab.known_hosts.read_text().splitlines())
    return "".join(f"[{names}]:{port} {key}\n" for names, key in lines if names == lab.address(node))


@pytest.fixture
def reached(conn: LabUnderTest, tmp_path: Path) -> Reached:
    for node in conn.nodes:
        conn.run(node, UBUNTU)
    conn.run("te2", f"echo 'AllowUsers *@{conn.address('te1')}' >> {SSHD}; systemctl restart ssh")
    conn.run("te1", f"echo 'Port {PORT}' >> {SSHD}; systemctl restart ssh")
    known, config = tmp_path / "known", tmp_path / "config"
    known.write_text(conn.lab.known_hosts.read_text() + known_at(conn, "te1", PORT))
    config.write_text(
        f"UserKnownHostsFile {known}\nIdentityFile {conn.lab.ssh_key}\nIdentitiesOnly yes\n"
        f"Host gate\n  HostName {conn.address('te1')}\n  Port {PORT}\n  User ubuntu\n"
    )
    found = Reached(lab=conn, folder=tmp_path, config=config)
    found.write(ansible_ssh_private_key_file="")
    return found


@contextmanager
def processes() -> Iterator[set[str]]:
    """The words of all processes of this machine and its nodes, looked at again and again."""
    seen, ended = set[str](), threading.Event()

    def look() -> None:
        while not ended.wait(0.01):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with suppress(OSError):
                    seen.add(path.read_text(errors="replace").replace("\0", " "))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()


def said(finished: Finished) -> str:
    return " ".join((finished.stdout + finished.stderr).split())


def test_another_port_a_jump_host_sudo_and_groups_of_groups(reached: Reached) -> None:
    playbook(reached.lab, *TRUST)
    again = playbook(reached.lab, *TRUST)
    with processes() as seen:
        status = provision("status", "--json", "-i", reached.inventory, check=False)
        audit = provision("audit", "--keys-only", "-i", reached.inventory, check=False)
    spread = "runuser -u {user} -- ssh -o BatchMode=yes {node} hostname"
    to_te1 = reached.sudo("te2", spread.format(user=JOB_USER, node="te1"))
    to_te2 = reached.sudo("te1", spread.format(user=JOB_USER, node=reached.lab.address("te2")))

    assert not any(changed(again).values())
    assert [node["unreachable"] for node in json.loads(status.stdout)["nodes"]] == ["", ""]
    assert "not seen" not in said(audit)
    assert PASSWORD not in status.stdout + status.stderr + audit.stdout + audit.stderr
    assert any("sudo" in words for words in seen)  # those of the nodes are seen from here
    assert not [words for words in seen if PASSWORD in words]
    assert (to_te1, to_te2) == ("te1", "te2")
    assert f"[te1]:{PORT},[{reached.lab.address('te1')}]:{PORT} " in reached.sudo(
        "te2", "cat /etc/ssh/ssh_known_hosts"
    )


def test_a_port_where_nobody_listens_is_named_before_anything_is_changed(reached: Reached) -> None:
    before = reached.sudo("te1", "cat /etc/hosts; ls -lR /etc/ssh")
    reached.write(cluster_ssh_port=22)

    refused = playbook(reached.lab, *TRUST, check=False)

    assert refused.returncode != 0
    assert "te1: nothing listens at port 22, where the other nodes would reach its sshd" in said(refused)
    assert f"it listens by sshd {PORT}" in said(refused)
    assert "cluster_ssh_port" in said(refused)
    assert reached.sudo("te1", "cat /etc/hosts; ls -lR /etc/ssh") == before


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Mapping[str, str]]:
    """The environment of an agent of its own."""
    socket = tmp_path / "agent"
    with subprocess.Popen(["ssh-agent", "-D", "-a", socket], stdout=subprocess.DEVNULL) as running:
        while not socket.exists():
            assert running.poll() is None
        yield {**os.environ, "SSH_AUTH_SOCK": str(socket)}
        running.terminate()


def test_a_key_with_a_passphrase_opens_nodes_by_an_agent_alone(
    conn: LabUnderTest, agent: Mapping[str, str], tmp_path: Path
) -> None:
    locked, ask = tmp_path / "locked", tmp_path / "ask"
    locked.write_bytes(conn.lab.ssh_key.read_bytes())
    locked.chmod(0o600)
    subprocess.run(["ssh-keygen", "-q", "-p", "-N", "sesame", "-f", locked], check=True)
    ask.write_text("#!/bin/sh\necho sesame\n")
    ask.chmod(0o700)
    variables = {"ansible_ssh_private_key_file": str(locked)}
    (conn.inventory / "group_vars" / "all" / "site.yml").write_text(json.dumps(variables))
    alone = {name: value for name, value in os.environ.items() if name != "SSH_AUTH_SOCK"}

    without = provision("status", "--json", "-i", str(conn.inventory), check=False, env=alone)
    asked = {**agent, "SSH_ASKPASS": str(ask), "SSH_ASKPASS_REQUIRE": "force"}
    subprocess.run(["ssh-add", "-q", locked], env=asked, check=True, stdin=subprocess.DEVNULL)
    with_agent = provision("status", "--json", "-i", str(conn.inventory), check=False, env=agent)

    assert without.returncode == 1
    assert "needs a passphrase" in said(without)
    assert "ssh-add" in said(without)
    assert [node["unreachable"] for node in json.loads(with_agent.stdout)["nodes"]] == ["", ""]


# As on Ubuntu 24.04: a socket listens, with a port of its own. In the gate the test above asks.
@pytest.mark.long
def test_a_socket_that_starts_sshd_has_the_port_that_counts(conn: LabUnderTest, tmp_path: Path) -> None:
    drop_in = "/etc/systemd/system/ssh.socket.d"
    lines = f"[Socket]\\nListenStream=\\nListenStream={PORT}\\n"
    listens = f"mkdir -p {drop_in}; printf '{lines}' > {drop_in}/port.conf"
    instead = "systemctl disable -q --now ssh; systemctl enable -q --now ssh.socket"
    conn.run("te2", f"{listens}; systemctl daemon-reload; {instead}")
    known = tmp_path / "known"
    known.write_text(conn.lab.known_hosts.read_text() + known_at(conn, "te2", PORT))
    hosts = {name: {"ansible_host": conn.address(name)} for name in conn.nodes}
    arguments = f"-o IdentitiesOnly=yes -o UserKnownHostsFile={known}"
    (conn.inventory / "group_vars" / "all" / "site.yml").write_text(
        json.dumps({"ansible_ssh_common_args": arguments})
    )
    hosts["te2"]["ansible_port"] = str(PORT)
    (conn.inventory / "hosts.yml").write_text(json.dumps({"cluster": {"hosts": hosts}}))

    refused = playbook(conn, *TRUST, "-e", '{"cluster_ssh_port": 22}', check=False)
    playbook(conn, *TRUST)
    again = playbook(conn, *TRUST)

    assert "te2: nothing listens at port 22" in said(refused)
    assert f"{PORT} (Stream)" in said(refused)
    assert not any(changed(again).values())
    assert conn.out("te1", "ssh -o BatchMode=yes te2 hostname", user=JOB_USER) == "te2"


WHO = "import os; print('ran as', os.environ['USER'], os.getcwd())"


# All of it at once, and to the end. In the gate the tests above ask the same of the roles that reach nodes.
@pytest.mark.long
@pytest.mark.usefixtures("mirror")
def test_such_a_site_with_a_user_of_its_own_goes_from_start_to_end(reached: Reached) -> None:
    password = reached.folder / "password"
    password.write_text(f"{PASSWORD}\n")
    for node in reached.lab.nodes:
        reached.sudo(node, "useradd --create-home --shell /bin/bash train")
    reached.write(cluster_user="train", ansible_become_password=None, ansible_ssh_private_key_file="")

    with processes() as seen:
        playbook(reached.lab, "--become-password-file", str(password))
    again = playbook(reached.lab, "--become-password-file", str(password))
    wrong = provision("status", "--json", "-i", reached.inventory, check=False)
    reached.write(cluster_user="train")
    status = provision("status", "--json", "-i", reached.inventory, check=False)
    smoke = provision("smoke", "--quick", "-i", reached.inventory, check=False)
    output = ("--output", str(reached.folder / "image"))
    baked = provision("image", "bake", "te2", "--check", *output, "-i", reached.inventory, check=False)
    as_train = "cd /data/jobs/train && runuser -u train -- "
    for node in reached.lab.nodes:
        reached.sudo(node, as_train + f"sh -c {shlex.quote(f'echo {shlex.quote(WHO)} > who.py')}")
    job = reached.sudo("te1", as_train + "zerorun --tee all who.py")

    assert not any(changed(again).values())
    assert not [words for words in seen if PASSWORD in words]
    assert "ansible_become_password" in said(wrong)
    assert [node["unreachable"] for node in json.loads(status.stdout)["nodes"]] == ["", ""]
    assert (status.returncode, smoke.returncode) == (0, 0), said(status) + said(smoke)
    assert baked.returncode == 0, said(baked)
    assert job.count("ran as train /data/jobs/train") == 2
