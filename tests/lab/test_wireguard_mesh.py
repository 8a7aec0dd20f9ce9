"""The role wireguard_mesh: what passes the wire, who is kept out, what brings it up and takes it off.

te1 to te3 are nodes; te4 is a machine in the same network that is none.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.conftest import RecordRefusal
from tests.lab.conftest import STATE, Finished, LabUnderTest, changed, made, playbook, provision
from tests.lab.jobs import wait_until
from tests.lab.wire import CONNECT, CONNECTED, Wire

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]

NODES = ("te1", "te2", "te3")
TAGS = "node_access,wireguard_mesh,host_names,job_user,ssh_trust,collective_network,job_firewall"
INTERFACE, UNIT = "wg-mesh", "clusterwright-wireguard-mesh"
KEY = "/etc/wireguard/clusterwright.key"
JOB_PORT = 40001
OFF = ("--tags", "wireguard_mesh", "--extra-vars", '{"wireguard_mesh_enabled": false}')
LEFT = (
    "find /etc/wireguard /usr/local/lib /etc/systemd -name '*mesh*' -o -name '*clusterwright.key'; "
    f"ip -brief link show dev {INTERFACE}; nft list tables; pgrep -a wireguard-go || true"
)
# Says what it received on a UDP port of an address within two seconds.
HEAR = """
import socket, sys
heard = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
heard.bind((sys.argv[1], 40002))
heard.settimeout(4)
print("listens", flush=True)
try:
    print(heard.recvfrom(100))
except TimeoutError:
    print("nothing")
"""
SAY = """
import socket, sys
told = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
told.bind((sys.argv[1], 0))
told.sendto(b"words", (sys.argv[2], 40002))
"""


def inside(node: str) -> str:
    """A node's address in the mesh."""
    return f"10.88.0.{node.removeprefix('te')}"


def meshed(lab: LabUnderTest, *words: str, check: bool = True) -> Finished:
    return playbook(lab, "--tags", TAGS, *words, check=check)


def said(finished: Finished) -> str:
    return " ".join((finished.stdout + finished.stderr).split())


def python_on(lab: LabUnderTest, node: str, program: str, *words: str) -> str:
    return lab.out(node, f"python3 -c {shlex.quote(program)} {shlex.join(words)}")


def describe(lab: LabUnderTest) -> None:
    """The inventory, as of a person; all are drained, so that no command asks for a smoke test."""
    addresses = "{{ansible_host: {}, cluster_address: {}, cluster_drained: true}}"
    lines = [f"    {node}: {addresses.format(lab.address(node), inside(node))}" for node in NODES]
    (lab.inventory / "hosts.yml").write_text("\n".join(["---", "cluster:", "  hosts:", *lines, ""]))
    (lab.inventory / "group_vars/all/mesh.yml").write_text("---\nwireguard_mesh_enabled: true\n")


@pytest.fixture(scope="module")
def mesh_lab(mirror: None, lab_machine: None) -> Iterator[LabUnderTest]:
    """Blank nodes on which check mode and a refusal changed nothing, then the roles."""
    for lab in made("mesh", "10.77.233.0/24", 4):
        describe(lab)
        before = lab.out_of_all(STATE)
        checked = meshed(lab, "--check")
        assert all(changed(checked)[node] > 0 for node in NODES)
        lab.run("te2", f"ip tuntap add {INTERFACE} mode tun")
        refused = meshed(lab, check=False)
        lab.run("te2", f"ip link delete {INTERFACE}")
        assert refused.returncode != 0
        assert f"te2: there is an interface {INTERFACE} that site.yml did not make" in said(refused)
        assert lab.out_of_all(STATE) == before
        meshed(lab)
        yield lab


def test_a_second_run_changes_nothing(mesh_lab: LabUnderTest) -> None:
    assert changed(meshed(mesh_lab)) == dict.fromkeys(NODES, 0)


def test_a_private_key_stays_on_its_node_and_is_root_s(mesh_lab: LabUnderTest) -> None:
    keys = [mesh_lab.out(node, f"cat {KEY}") for node in NODES]
    ledger = (mesh_lab.lab.folder / "secrets" / "mesh_keys.yml").read_text()

    assert len(set(keys)) == len(NODES)
    for node, key in zip(NODES, keys, strict=True):
        assert mesh_lab.out(node, f"stat -c '%a %U' {KEY}") == "600 root"
        assert mesh_lab.out(node, f"wg pubkey < {KEY}") in ledger
        assert key not in ledger
        elsewhere = f"grep -rlF {shlex.quote(key)} /etc /usr/local /var /run /root || true"
        assert mesh_lab.out(node, elsewhere).splitlines() == [KEY]
        assert mesh_lab.out("te1" if node == "te2" else "te2", elsewhere) == ""


def test_names_trust_and_collectives_go_through_the_mesh(mesh_lab: LabUnderTest) -> None:
    assert mesh_lab.out("te1", "getent hosts te2").split() == [inside("te2"), "te2"]
    assert "NCCL_SOCKET_IFNAME==wg-mesh" in mesh_lab.out("te1", "cat /etc/clusterwright/job.env")
    through = "ssh -o BatchMode=yes te2 'hostname; echo $SSH_CONNECTION'"
    hostname, connection = mesh_lab.run("te1", through, user="trainer").stdout.splitlines()
    assert hostname == "te2"
    assert connection.split()[0] == inside("te1")
    assert connection.split()[2] == inside("te2")


def tell(lab: LabUnderTest, address: str, words: str) -> str:
    """te1 sends words to te2 at an address, 100 times; what te2 received."""
    receive = f"timeout 10 python3 -c {shlex.quote(RECEIVE)} {address}"
    lab.run("te2", f"systemd-run --quiet --unit=receive --property=StandardOutput=file:/tmp/got {receive}")
    wait_until(lab, "te2", f"ss -ltn | grep -q {address}:{JOB_PORT}")
    python_on(lab, "te1", TELL, address, words)
    wait_until(lab, "te2", "! systemctl is-active --quiet receive")
    return lab.out("te2", "cat /tmp/got")


RECEIVE = f"""
import socket, sys
with socket.create_server((sys.argv[1], {JOB_PORT})) as listener:
    line, _ = listener.accept()
    print(len(b"".join(iter(lambda: line.recv(1 << 16), b""))))
"""
TELL = f"""
import socket, sys, time
with socket.create_connection((sys.argv[1], {JOB_PORT})) as line:
    for turn in range(100):
        line.sendall(sys.argv[2].encode())
        time.sleep(0.001)
"""


@pytest.mark.attack("network")
def test_who_listens_on_the_wire_sees_nothing_of_what_nodes_say(
    mesh_lab: LabUnderTest, record_refusal: RecordRefusal
) -> None:
    words = "gradients-of-somebody-else"

    with Wire(words.encode()) as encrypted:
        got = tell(mesh_lab, inside("te2"), words)
    with Wire(words.encode()) as plain:
        got_plain = tell(mesh_lab, mesh_lab.address("te2"), words)

    record_refusal(f"{encrypted.bytes} bytes on the wire, {encrypted.frames} frames with the words in them")
    assert got == got_plain == str(100 * len(words))
    assert encrypted.frames == 0
    assert encrypted.bytes > 100 * len(words)
    assert plain.frames > 0


@pytest.fixture
def on_the_wire(mesh_lab: LabUnderTest) -> Iterator[LabUnderTest]:
    """te4 sends what is for the mesh to te1 itself, and says that it is te2; a job listens on te1."""
    mesh_lab.run("te4", f"ip route add 10.88.0.0/24 via {mesh_lab.address('te1')}")
    serve = f"python3 -m http.server --bind {inside('te1')} {JOB_PORT}"
    mesh_lab.run("te1", f"systemd-run --quiet --unit=job {serve}")
    wait_until(mesh_lab, "te1", f"ss -ltn | grep -q {inside('te1')}:{JOB_PORT}")
    yield mesh_lab
    mesh_lab.run("te1", "systemctl stop job")
    mesh_lab.run("te4", f"ip route del 10.88.0.0/24; ip address del {inside('te2')}/32 dev lo", check=False)


@pytest.mark.attack("network")
def test_a_machine_on_the_same_wire_reaches_no_port_in_the_mesh(
    on_the_wire: LabUnderTest, record_refusal: RecordRefusal
) -> None:
    seen = {port: python_on(on_the_wire, "te4", CONNECT, inside("te1"), str(port)) for port in (22, JOB_PORT)}

    for port, words in seen.items():
        record_refusal(f"te4 to port {port}: {words}")
        assert words != CONNECTED
        assert python_on(on_the_wire, "te2", CONNECT, inside("te1"), str(port)) == CONNECTED
    with unguarded(on_the_wire):
        assert python_on(on_the_wire, "te4", CONNECT, inside("te1"), "22") == CONNECTED


@contextmanager
def unguarded(lab: LabUnderTest) -> Iterator[None]:
    """te1 without the guard of its mesh: the attack itself works."""
    lab.run("te1", f"systemctl stop {UNIT}-guard")
    try:
        yield
    finally:
        lab.run("te1", f"systemctl start {UNIT}-guard")


@pytest.mark.attack("network")
def test_nobody_says_that_he_is_a_node(on_the_wire: LabUnderTest, record_refusal: RecordRefusal) -> None:
    on_the_wire.run("te4", f"ip address add {inside('te2')}/32 dev lo")
    # As Debian has it; a distribution's own setting is not what keeps him out here.
    on_the_wire.run("te1", "for one in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 > $one; done")

    forged = heard(on_the_wire, "te4")
    honest = heard(on_the_wire, "te2")
    with unguarded(on_the_wire):
        forged_without_guard = heard(on_the_wire, "te4")

    record_refusal(f"te1 heard of te4 that says it is te2: {forged}")
    assert forged == "nothing"
    assert inside("te2") in honest
    assert inside("te2") in forged_without_guard


def heard(lab: LabUnderTest, speaker: str) -> str:
    """What te1 hears in the mesh of a speaker that sends as te2."""
    hear = f"python3 -c {shlex.quote(HEAR)} {inside('te1')}"
    lab.run("te1", f"systemd-run --quiet --unit=hear --property=StandardOutput=file:/tmp/heard {hear}")
    wait_until(lab, "te1", "grep -q listens /tmp/heard")
    python_on(lab, speaker, SAY, inside("te2"), inside("te1"))
    wait_until(lab, "te1", "! systemctl is-active --quiet hear")
    return lab.out("te1", "tail -1 /tmp/heard; rm /tmp/heard")


HANDSHAKES = "wg show all latest-handshakes | awk '{print $NF}' | sort -u"


@pytest.mark.attack("network")
def test_a_machine_with_a_key_of_its_own_is_no_peer(
    mesh_lab: LabUnderTest, record_refusal: RecordRefusal
) -> None:
    """te4 knows what is public: te1's key, its endpoint and the addresses of the mesh."""
    public = mesh_lab.out("te1", f"wg show {INTERFACE} public-key")
    for program in mesh_lab.out("te1", "command -v wg wireguard-go").split():
        copy(mesh_lab, program, "te1", "te4")
    peer = f"peer {public} endpoint {mesh_lab.address('te1')}:51820 allowed-ips 10.88.0.0/24"
    mesh_lab.run(
        "te4",
        f"wireguard-go evil && wg genkey > /root/k && wg set evil private-key /root/k {peer}; "
        f"ip address add {inside('te2')}/24 dev evil; ip link set evil up",
    )

    answered = mesh_lab.run("te4", f"ping -c 1 -w 6 {inside('te1')}", check=False)
    shaken = mesh_lab.out("te4", HANDSHAKES)
    mesh_lab.run("te4", "ip link delete evil")

    record_refusal(f"te4: {answered.stdout.splitlines()[-1]}; latest handshake {shaken}")
    assert answered.returncode != 0
    assert shaken == "0"


def copy(lab: LabUnderTest, path: str, source: str, target: str) -> None:
    """A program of one machine to another, through this one."""
    text = lab.out(source, f"base64 -w0 {path}")
    part = 100_000
    lab.run(target, f": > {path}.b64")
    for at in range(0, len(text), part):
        lab.run(target, f"printf %s {text[at : at + part]} >> {path}.b64")
    lab.run(target, f"base64 -d {path}.b64 > {path} && chmod 755 {path}; rm {path}.b64")


@pytest.mark.attack("node")
def test_a_key_that_somebody_changed_is_refused_and_nothing_is_changed(
    mesh_lab: LabUnderTest, record_refusal: RecordRefusal
) -> None:
    mesh_lab.run("te2", f"cp -p {KEY} /root/before; wg genkey > {KEY}")
    peers = "cat /usr/local/lib/clusterwright/wireguard_mesh.conf"
    before = mesh_lab.out("te1", peers)

    refused = meshed(mesh_lab, check=False)
    after = mesh_lab.out("te1", peers)
    mesh_lab.run("te2", f"cp -p /root/before {KEY}; rm /root/before")

    words = said(refused)
    start = words.index("te2: the public half of")
    record_refusal(words[start : start + 190])
    assert "somebody changed it" in words
    assert before == after
    assert changed(meshed(mesh_lab)) == dict.fromkeys(NODES, 0)


def reaches(lab: LabUnderTest, source: str, target: str) -> bool:
    return lab.run(source, f"ping -c 1 -w 5 {inside(target)}", check=False).returncode == 0


def test_what_died_or_was_taken_down_comes_back(mesh_lab: LabUnderTest) -> None:
    mesh_lab.run("te1", "pkill -9 wireguard-go")
    wait_until(mesh_lab, "te1", f"ip -brief address show dev {INTERFACE} | grep -q {inside('te1')}")
    by_itself = reaches(mesh_lab, "te1", "te2")
    mesh_lab.run("te2", f"systemctl stop {UNIT}; systemctl disable --quiet {UNIT}; nft flush ruleset")
    assert not reaches(mesh_lab, "te1", "te2")

    again = changed(meshed(mesh_lab))

    assert by_itself
    assert again["te2"] > 0
    assert again["te1"] == again["te3"] == 0
    assert reaches(mesh_lab, "te1", "te2")
    mesh_lab.reboot("te3")
    wait_until(mesh_lab, "te3", f"ip -brief address show dev {INTERFACE} | grep -q {inside('te3')}")
    assert reaches(mesh_lab, "te3", "te1")


def test_the_audit_knows_it(mesh_lab: LabUnderTest) -> None:
    found = json.loads(provision("audit", "-i", str(mesh_lab.inventory), "--json", check=False).stdout)

    text = json.dumps(found)
    assert "wireguard" not in text
    assert "51820" not in text
    mesh_lab.run("te1", f"chmod 644 {KEY}")
    told = provision("audit", "-i", str(mesh_lab.inventory), check=False).stdout
    mesh_lab.run("te1", f"chmod 600 {KEY}")
    assert f"{KEY} has mode 0644" in told


@pytest.mark.attack("node, left behind")
def test_a_node_that_was_removed_is_no_peer_though_it_knows_all_that_it_knew(
    mesh_lab: LabUnderTest, record_refusal: RecordRefusal
) -> None:
    hosts = (mesh_lab.inventory / "hosts.yml").read_text()
    mesh_lab.run(
        "te1", f"systemd-run --quiet --unit=job python3 -m http.server --bind {inside('te1')} {JOB_PORT}"
    )
    wait_until(mesh_lab, "te1", f"ss -ltn | grep -q {inside('te1')}:{JOB_PORT}")
    assert python_on(mesh_lab, "te3", CONNECT, inside("te1"), str(JOB_PORT)) == CONNECTED
    sessions = f"wg show {INTERFACE} latest-handshakes"
    before = mesh_lab.out("te1", sessions)

    provision("node", "remove", "te3", "-i", str(mesh_lab.inventory), timeout_seconds=600)

    in_session = python_on(mesh_lab, "te3", CONNECT, inside("te1"), str(JOB_PORT))
    mesh_lab.run("te3", f"systemctl restart {UNIT}")
    answered = mesh_lab.run("te3", f"ping -c 1 -w 6 {inside('te1')}", check=False)
    shaken = mesh_lab.out("te3", HANDSHAKES)
    after = mesh_lab.out("te1", sessions)
    mesh_lab.run("te1", "systemctl stop job")

    record_refusal(f"te3 in its session of before: {in_session}")
    record_refusal(f"te3, restarted: {answered.stdout.splitlines()[-1]}; latest handshake {shaken}")
    assert in_session != CONNECTED
    assert answered.returncode != 0
    assert shaken == "0"
    assert "te3" not in (mesh_lab.lab.folder / "secrets" / "mesh_keys.yml").read_text()
    # The session of those that stay goes on: no key of theirs had to be made anew.
    assert len(before.splitlines()) == 2
    assert len(after.splitlines()) == 1
    assert reaches(mesh_lab, "te1", "te2")
    (mesh_lab.inventory / "hosts.yml").write_text(hosts)
    meshed(mesh_lab)
    assert reaches(mesh_lab, "te3", "te1")


def test_switched_off_it_is_gone_and_can_be_had_again(mesh_lab: LabUnderTest) -> None:
    playbook(mesh_lab, *OFF)
    left = mesh_lab.out("te1", LEFT)
    again = changed(playbook(mesh_lab, *OFF))

    meshed(mesh_lab)

    assert left.splitlines() == ["table inet clusterwright"]
    assert again == dict.fromkeys(NODES, 0)
    assert reaches(mesh_lab, "te1", "te3")


def test_a_teardown_takes_it_off(mesh_lab: LabUnderTest) -> None:
    mesh_lab.run("te1", "mkdir -p /etc/wireguard; echo theirs > /etc/wireguard/wg7.conf")

    playbook(mesh_lab, "playbooks/teardown.yml", "-e", f"teardown_confirm={mesh_lab.name}")

    assert mesh_lab.out("te1", LEFT) == ""
    assert mesh_lab.out("te1", "ls /etc/wireguard") == "wg7.conf"
    assert mesh_lab.run("te1", "command -v wg", check=False).returncode != 0
