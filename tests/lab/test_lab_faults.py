"""Each fault does what it says, and leaves nothing behind."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from provision.lab.cgroups import limited_groups
from provision.lab.fault import record
from provision.lab.fault.catalogue import CATALOGUE
from provision.lab.fault.record import Active
from provision.lab.observe import answers
from tests.lab.conftest import LabUnderTest, made, provision

CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 1)"
# Each in a thread: who was cut off by a fault says so to the other side only half a minute later.
TAKES_ALL = """import socket, sys, threading
server = socket.create_server(("", int(sys.argv[1])))
def take(peer):
    size = int.from_bytes(peer.recv(4, socket.MSG_WAITALL), "big")
    peer.sendall(b"!" if len(peer.recv(size, socket.MSG_WAITALL)) == size else b"?")
while True:
    threading.Thread(target=take, args=(server.accept()[0],)).start()
"""
SENDS = """import socket, sys
size = int(sys.argv[2])
peer = socket.create_connection((sys.argv[1], 20000), 2)
peer.settimeout(2 + size / 1e6)
peer.sendall(size.to_bytes(4, "big") + bytes(size))
sys.exit(peer.recv(1) != b"!")
"""
COUNTS = """import socket
box = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
box.bind(("", 20001))
box.settimeout(3)
count = 0
try:
    while box.recv(9) != b"end":
        count += 1
except TimeoutError:
    pass
print(count)
"""
SPENT = """import time
begun, wall = time.process_time(), time.monotonic()
while time.monotonic() < wall + 1:
    pass
print(time.process_time() - begun)
"""


def python(program: str, *words: str) -> str:
    return shlex.join(["python3", "-c", program, *words])


def reaches(lab: LabUnderTest, node: str, target: str, port: int) -> bool:
    return lab.run(node, python(CONNECT, lab.address(target), str(port)), check=False).returncode == 0


def carries(lab: LabUnderTest, node: str, target: str, size: int) -> bool:
    return lab.run(node, python(SENDS, lab.address(target), str(size)), check=False).returncode == 0


@pytest.fixture(scope="module")
def broken_lab(lab_machine: None) -> Iterator[LabUnderTest]:
    """Two nodes, each with something that listens on ports 20000 and 40000."""
    for lab in made("faults", "10.77.203.0/24", 2):
        for node in lab.nodes:
            for port in (20000, 40000):
                run = f"systemd-run --quiet --collect --unit=takes-{port} {python(TAKES_ALL, str(port))}"
                lab.run(node, run)
        yield lab


_FILES = "find /etc /var/lib/clusterwright-fault /data -xdev -type f 2>/dev/null | sort"
_LOOKS = {
    "rules": "nft list ruleset",
    "queues": "tc qdisc show",
    "links": "ip -brief address",
    "files": f"{_FILES} | xargs sha256sum; {_FILES} | xargs stat -c '%n %a %u %g'",
    "units": "systemctl list-units --all --plain --no-legend 'clusterwright-*'",
}


def traces(lab: LabUnderTest) -> dict[str, object]:
    """All that a fault could leave on te2: rules, queues, links, files with their modes, units, a group."""
    here = Path("/sys/class/net") / f"cw{lab.name}-te2"
    groups = limited_groups(f"{lab.name}/te2")
    looks = lab.out("te2", "; echo =====; ".join(_LOOKS.values())).split("=====")
    return {
        **dict(zip(_LOOKS, looks, strict=True)),
        "cable": ((here / "operstate").read_text(), (here / "mtu").read_text()),
        # Not its state: systemd calls it booting as long as a unit starts.
        "limits": {name: value for name, value in lab.status()["te2"].items() if name != "state"},
        "groups": [name for name, group in groups.items() if group.exists()],
        "record": (lab.lab.nodes[1].folder / "faults.json").exists(),
    }


def is_cut(lab: LabUnderTest) -> None:
    assert not answers(lab.address("te2"))


def sends_slowly(lab: LabUnderTest) -> None:
    assert (lab.status()["te2"]["egress"], lab.status()["te2"]["ingress"]) == ("50mbit", None)


def receives_slowly(lab: LabUnderTest) -> None:
    assert (lab.status()["te2"]["egress"], lab.status()["te2"]["ingress"]) == (None, "50mbit")


def is_slow(lab: LabUnderTest) -> None:
    assert (lab.status()["te2"]["egress"], lab.status()["te2"]["ingress"]) == ("50mbit", "50mbit")


def lets_only_ssh_through(lab: LabUnderTest) -> None:
    assert reaches(lab, "te1", "te2", 22)
    assert not reaches(lab, "te1", "te2", 20000)
    assert not reaches(lab, "te1", "te2", 40000)


def blocks_the_range(lab: LabUnderTest) -> None:
    assert reaches(lab, "te1", "te2", 20000)
    assert not reaches(lab, "te1", "te2", 40000)
    assert reaches(lab, "te2", "te1", 40000)


def blocks_the_peer(lab: LabUnderTest) -> None:
    assert answers(lab.address("te2"))
    assert not reaches(lab, "te1", "te2", 22)


def swallows_what_is_large(lab: LabUnderTest) -> None:
    assert carries(lab, "te1", "te2", 1000)
    assert carries(lab, "te2", "te1", 1000)
    assert not carries(lab, "te1", "te2", 16384)
    assert not carries(lab, "te2", "te1", 16384)


def rate_of(lab: LabUnderTest, source: str, target: str) -> float:
    """Megabytes in a second that one stream carries; it begins with a burst: 31 were seen of 20."""
    seconds = f"TIMEFORMAT=%R; {{ time {python(SENDS, lab.address(target), str(50_000_000))}; }} 2>&1"
    return 50 / float(lab.out(source, seconds))


def takes_slowly_of_te1(lab: LabUnderTest) -> None:
    assert 2 * rate_of(lab, "te1", "te2") < rate_of(lab, "te2", "te1")


def is_a_slow_link(lab: LabUnderTest) -> None:
    assert rate_of(lab, "te1", "te2") < 60
    assert rate_of(lab, "te2", "te1") < 60


def loses_some(lab: LabUnderTest) -> None:
    lab.run("te2", f"({python(COUNTS)}) >/root/count 2>&1 </dev/null & sleep 0.5")
    send = "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); a = ({!r}, 20001)\n"
    send += "for _ in range(400): s.sendto(b'x', a)\nfor _ in range(20): s.sendto(b'end', a)"
    lab.run("te1", python(send.format(lab.address("te2"))))
    count = int(
        lab.out("te2", "for i in $(seq 50); do [ -s /root/count ] && break; sleep 0.1; done; cat /root/count")
    )

    assert 250 < count < 380  # 320 of 400 are expected; the deviation is 8


def calls_itself_loopback(lab: LabUnderTest) -> None:
    assert lab.out("te2", "getent ahostsv4 te2").split()[0] == "127.0.1.1"


def takes_another_for_te1(lab: LabUnderTest) -> None:
    assert lab.out("te2", "getent ahostsv4 te1").split()[0] == str(lab.lab.subnet[-2])


def is_refused(lab: LabUnderTest) -> None:
    assert "HOST IDENTIFICATION HAS CHANGED" in lab.run("te2", "true", check=False).stderr


def computes_slowly(lab: LabUnderTest) -> None:
    assert float(lab.out("te2", python(SPENT))) < 0.3


def writes_slowly(lab: LabUnderTest) -> None:
    writing = "dd if=/dev/zero of=/dev/vdb bs=1M count=4 oflag=direct conv=fsync 2>/dev/null"
    assert float(lab.out("te2", f"TIMEFORMAT=%R; {{ time {writing}; }} 2>&1")) > 0.5


def has_another_clock(lab: LabUnderTest) -> None:
    now = "import time; print(time.time())"
    first, second = (float(lab.out(node, python(now))) for node in ("te1", "te2"))
    assert 80 < second - first < 100


def takes_the_port(lab: LabUnderTest) -> None:
    assert reaches(lab, "te1", "te2", 29500)


EFFECTS: dict[str, Callable[[LabUnderTest], None]] = {
    "link-down te2": is_cut,
    "slow-send te2": sends_slowly,
    "slow-receive te2": receives_slowly,
    "slow-both te2": is_slow,
    "firewall-all te2": lets_only_ssh_through,
    "firewall-ports te2": blocks_the_range,
    "firewall-peer te2 te1": blocks_the_peer,
    "mtu-hole te2": swallows_what_is_large,
    "packet-loss te2": loses_some,
    "slow-direction te2 te1": takes_slowly_of_te1,
    "slow-link te2 te1": is_a_slow_link,
    "loopback-name te2": calls_itself_loopback,
    "wrong-hosts te2 te1": takes_another_for_te1,
    "host-key-changed te2": is_refused,
    "slow-cpu te2": computes_slowly,
    "slow-disk te2": writes_slowly,
    "clock-skew te2": has_another_clock,
    "ports-taken te2": takes_the_port,
}


@pytest.mark.parametrize(
    "words",
    [pytest.param(words, marks=[pytest.mark.measures] * words.startswith("slow-")) for words in EFFECTS],
)
def test_a_fault_does_what_it_says_and_leaves_nothing_behind(broken_lab: LabUnderTest, words: str) -> None:
    before = traces(broken_lab)

    broken_lab.provision("fault", "inject", *words.split())
    try:
        EFFECTS[words](broken_lab)
    finally:
        cleared = broken_lab.provision("fault", "clear", "te2")

    assert cleared.stdout.startswith(f"cleared {words}")
    assert traces(broken_lab) == before


def test_clearing_what_was_recorded_and_never_injected_changes_nothing(broken_lab: LabUnderTest) -> None:
    node = broken_lab.lab.nodes[1]
    before = traces(broken_lab)
    actives = [
        Active(fault=fault.name, peer="te1" if fault.two_nodes else None, value=fault.value_of(None))
        for fault in CATALOGUE.values()
    ]

    record.save(node, actives)
    cleared = broken_lab.provision("fault", "clear", "te2")

    assert cleared.stdout.count("cleared ") == len(CATALOGUE)
    assert broken_lab.provision("fault", "clear").stdout == ""
    assert traces(broken_lab) == before


def test_a_fault_is_still_known_after_a_power_cut_and_cleared(broken_lab: LabUnderTest) -> None:
    before = {
        name: value for name, value in traces(broken_lab).items() if name in ("rules", "files", "record")
    }
    broken_lab.provision("fault", "inject", "firewall-all", "te2")
    broken_lab.provision("fault", "inject", "wrong-hosts", "te2", "te1")
    broken_lab.power_off("te2")

    refused = broken_lab.provision("fault", "clear", check=False)
    broken_lab.power_on("te2")
    broken_lab.provision("fault", "clear")

    assert refused.returncode == 2
    assert "it is off" in refused.stderr
    assert {name: traces(broken_lab)[name] for name in before} == before


def test_every_fault_that_a_bare_lab_can_have_is_tried() -> None:
    bare = {fault.name for fault in CATALOGUE.values() if not fault.needs_site and not fault.needs_ranks}

    assert {words.split()[0] for words in EFFECTS} == bare


def test_what_site_yml_makes_cannot_be_broken_before(broken_lab: LabUnderTest) -> None:
    refused = broken_lab.provision("fault", "inject", "disk-full", "te2", check=False)

    assert refused.returncode == 2
    assert "site.yml has not run there" in refused.stderr


def test_a_slow_direction_gives_the_asked_limit_back(broken_lab: LabUnderTest) -> None:
    broken_lab.provision("shape", "te2", "--rate", "1gbit")
    try:
        broken_lab.provision("fault", "inject", "slow-send", "te2", "--value", "10mbit")
        assert broken_lab.status()["te2"]["egress"] == "10mbit"
        broken_lab.provision("fault", "clear")

        assert (broken_lab.status()["te2"]["egress"], broken_lab.status()["te2"]["ingress"]) == ("1gbit",) * 2
    finally:
        broken_lab.provision("shape", "te2", "--clear")


def test_list_shows_what_is_active_and_reset_forgets_it(broken_lab: LabUnderTest) -> None:
    broken_lab.provision("fault", "inject", "loopback-name", "te2")
    active = json.loads(broken_lab.provision("fault", "list", "--json").stdout)["active"]
    again = broken_lab.provision("fault", "inject", "loopback-name", "te2", check=False)

    assert active == [{"node": "te2", "fault": "loopback-name", "peer": None, "value": ""}]
    assert again.returncode == 2
    assert "loopback-name is there already" in again.stderr

    broken_lab.reset("te2")

    assert json.loads(broken_lab.provision("fault", "list", "--json").stdout)["active"] == []
    assert "clusterwright" not in broken_lab.out("te2", "cat /etc/hosts")


def test_an_unknown_fault_is_refused_and_a_lab_that_is_not_there_has_none() -> None:
    refused = provision("lab", "fault", "inject", "meteor", "te2", "--name", "nosuch", check=False)
    listed = json.loads(provision("lab", "fault", "list", "--json", "--name", "nosuch").stdout)

    assert refused.returncode == 2
    assert listed["active"] == []
    assert len(listed["catalogue"]) == len(CATALOGUE)
