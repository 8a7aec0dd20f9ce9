"""What owners have set on their machines stays where it is no worse than ours: names, ssh, limits, clocks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.lab.conftest import JOB_USER, Finished, LabUnderTest, changed, made, playbook, provision

NAMES = ("--tags", "node_access,host_names,ssh_trust")
# The first is Debian's installer's; then another machine, of whose name a node's is a part.
DEBIAN = "sed -i '/127.0.1.1/d' /etc/hosts; echo '127.0.1.1 {name} {short} www' >>/etc/hosts"
THEIRS = "echo '10.9.9.9 git.corp.example' >>/etc/hosts"
MEANT = ("te1", "te1.cluster.example", "git", "git.cluster.example", "www", "git.corp.example")
FILES = (
    "cat /etc/hosts /etc/hostname; hostname; find /etc/ssh /etc/security /etc/sysctl.d /etc/systemd | sort"
)


@pytest.fixture(scope="module")
def settings_lab(lab_machine: None) -> Iterator[LabUnderTest]:
    yield from made("settings", "10.77.243.0/24", 2)


@pytest.fixture
def settings(settings_lab: LabUnderTest) -> LabUnderTest:
    """Two blank nodes."""
    settings_lab.reset()
    return settings_lab


@contextmanager
def site(lab: LabUnderTest, hosts: dict[str, dict[str, str]], **variables: object) -> Iterator[None]:
    """The lab's inventory with these machines and variables in place of its own."""
    file, others = lab.inventory / "hosts.yml", lab.inventory / "group_vars" / "all" / "site.yml"
    before = file.read_text()
    file.write_text(json.dumps({"cluster": {"hosts": hosts}}))
    others.write_text(json.dumps(variables))
    try:
        yield
    finally:
        file.write_text(before)
        others.unlink()


def said(finished: Finished) -> str:
    """All that a run printed, as if its lines had no end."""
    return " ".join((finished.stdout + finished.stderr).split())


def teardown(lab: LabUnderTest) -> Finished:
    return playbook(lab, "playbooks/teardown.yml", "-e", json.dumps({"teardown_confirm": lab.name}))


def whole_names(lab: LabUnderTest, *names: str) -> dict[str, dict[str, str]]:
    return {name: {"ansible_host": lab.address(node)} for name, node in zip(names, lab.nodes, strict=True)}


def test_whole_names_have_their_short_ones_and_nobody_loses_a_name(settings: LabUnderTest) -> None:
    for node, short in zip(settings.nodes, ("te1", "git"), strict=True):
        settings.run(node, f"{DEBIAN.format(name=f'{short}.cluster.example', short=short)}; {THEIRS}")
    settings.run("te1", "sed -i 's/git.corp.example/& git/' /etc/hosts; echo git.example >/root/theirs")
    before = settings.out_of_all(FILES)

    with site(settings, whole_names(settings, "te1.cluster.example", "git.cluster.example")):
        playbook(settings, *NAMES)
        again = playbook(settings, *NAMES)
        te1, te2 = map(settings.address, settings.nodes)
        meant = settings.out_of_all(
            f"for name in {' '.join(MEANT)}; do getent ahostsv4 $name | head -n 1; done | cut -d' ' -f1"
        )
        ssh = "ssh -G git | grep -E '^(hostname|identityfile.*clusterwright)'"
        of_user = [settings.out(node, ssh, user=JOB_USER) for node in settings.nodes]
        met = settings.out(
            "te2", "ssh -o BatchMode=yes te1 hostname; ssh -o BatchMode=yes git hostname", user=JOB_USER
        )
        teardown(settings)

    assert not any(changed(again).values())
    assert meant[0].splitlines() == [te1, te1, "10.9.9.9", te2, "127.0.1.1", "10.9.9.9"]
    assert meant[1].splitlines() == [te1, te1, te2, te2, "127.0.1.1", "10.9.9.9"]
    assert of_user == [
        "hostname git",
        "hostname git.cluster.example\nidentityfile ~/.ssh/clusterwright_ed25519",
    ]
    assert met == "te1.cluster.example\ngit.cluster.example"
    assert settings.out_of_all(FILES) == before


RAISED = """sysctl -q -w net.core.somaxconn=9000
echo 'net.core.somaxconn = 9000' >/etc/sysctl.d/60-theirs.conf
echo '* soft nofile 18000' >/etc/security/limits.d/20-theirs.conf"""
LIVE = (
    "sysctl net.core.somaxconn; systemctl show --property=DefaultLimitNOFILE,DefaultLimitNOFILESoft; "
    "su trainer -s /bin/sh -c 'ulimit -Sn; ulimit -Hn'"
)


def test_what_is_larger_than_ours_is_not_lowered(settings: LabUnderTest) -> None:
    """te1 has larger values; te2 is as Debian leaves it, and its hard limits are larger, too."""
    settings.run("te1", RAISED)
    tuning = ("--tags", "node_access,job_user,host_tuning")
    before, (hard, *_) = settings.out_of_all(FILES), settings.out_of_all("ulimit -Hn")

    playbook(settings, *tuning)
    again = playbook(settings, *tuning)
    live = [text.split() for text in settings.out_of_all(LIVE)]
    settings.run("te1", "systemctl restart systemd-sysctl")
    booted = settings.out("te1", "sysctl -n net.core.somaxconn")
    teardown(settings)

    assert not any(changed(again).values())
    assert live[0][2:] == [
        "9000",
        "DefaultLimitNOFILE=524288",
        "DefaultLimitNOFILESoft=16384",
        "18000",
        hard,
    ]
    assert live[1][2:] == [
        "4096",
        "DefaultLimitNOFILE=524288",
        "DefaultLimitNOFILESoft=16384",
        "16384",
        hard,
    ]
    assert booted == "9000"
    assert settings.out_of_all(FILES) == before


# As an image brings it: te1 is a time server, te2 asks it. No container sets its clock.
CHRONY = """mkdir -p /etc/systemd/system/chrony.service.d; sed -i /chrony/d /var/lib/clusterwright/packages
printf '[Unit]\\nConditionCapability=\\n' >/etc/systemd/system/chrony.service.d/own.conf
echo 'DAEMON_OPTS="-F 1 -x"' >/etc/default/chrony; echo '{source}' >/etc/chrony/chrony.conf
systemctl daemon-reload; systemctl restart chrony"""
CLOCK = ("--tags", "node_access,time_sync")


@pytest.mark.usefixtures("mirror")
# In the gate test_time_sync works out which sources stay.
@pytest.mark.long
def test_a_clock_of_the_owner_s_is_kept_and_one_that_nobody_reaches_is_named(settings: LabUnderTest) -> None:
    packages = ("--tags", "base_packages", "-e", json.dumps({"base_packages_names": ["chrony"]}))
    playbook(settings, *packages)
    settings.run("te1", CHRONY.format(source="local stratum 8\nallow"))
    settings.run("te2", CHRONY.format(source=f"server {settings.address('te1')} iburst"))
    before = settings.out_of_all("sha256sum /etc/chrony/chrony.conf /etc/default/chrony")
    pool = {"time_sync_pools": ["pool.ntp.org"]}

    kept = playbook(settings, *CLOCK, "-e", json.dumps(pool))
    unreached = {**pool, "time_sync_servers": ["10.77.243.250"]}
    refused = playbook(settings, *CLOCK, "-e", json.dumps(unreached), check=False)

    assert not any(changed(kept).values())
    assert refused.returncode != 0
    assert "chrony has no source yet" in said(refused)
    assert "Asked were 10.77.243.250" in said(refused)
    assert "Its chrony.conf is as it was before" in said(refused)
    conf = "sha256sum /etc/chrony/chrony.conf"
    assert settings.out_of_all(conf) == [text.splitlines()[0] for text in before]
    assert "Normal" in settings.out(
        "te2", "chronyc -n waitsync 20 0 0 0.5 >/dev/null; chronyc -n -c tracking"
    )


# A daemon of the clock that somebody installed, and a source of packages that has it.
DAEMON = """mkdir -p /srv/p/{name}/DEBIAN; cd /srv/p; control={name}/DEBIAN/control
printf 'Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: x <x@example.com>\n' >$control
printf '%s: time-daemon\n' Provides Conflicts Replaces >>$control; echo 'Description: x' >>$control
dpkg-deb --build {name} {name}.deb; dpkg --install {name}.deb
(cat $control; echo "Filename: ./{name}.deb"; echo "Size: $(stat -c %s {name}.deb)"; sha256sum {name}.deb \\
| sed 's/^/SHA256: /; s/ [^ ]*$//') | sed 's/ *$//' >Packages
rm -f /etc/apt/sources.list; echo 'deb [trusted=yes] file:/srv/p ./' >/etc/apt/sources.list.d/own.list"""
INSTALLED = "dpkg-query --show -f '${db:Status-Status} ${Package}\\n' | grep -E 'ntpsec|timesyncd|chrony'"


@pytest.mark.usefixtures("mirror")
def test_a_clock_s_daemon_of_the_owner_s_is_not_taken_away_and_debian_s_comes_back(
    settings: LabUnderTest,
) -> None:
    for node, name in zip(settings.nodes, ("ntpsec", "systemd-timesyncd"), strict=True):
        settings.run(node, DAEMON.format(name=name))
    names = {"base_packages_names": ["chrony", "tmux"]}

    refused = playbook(settings, "--tags", "base_packages", "-e", json.dumps(names), check=False)
    replaced = settings.out_of_all(INSTALLED)
    with site(settings, whole_names(settings, *settings.nodes), cluster_without=["time_sync"], **names):
        playbook(settings, "--tags", "base_packages")
    gone = teardown(settings)

    assert "Once its sources answer" not in said(gone), said(gone)[-2500:]
    assert refused.returncode != 0
    assert "apt would remove ntpsec. Nothing was installed" in said(refused)
    assert "cluster_without: [time_sync]" in said(refused)
    assert "installed ntpsec" in replaced[0]
    assert "installed chrony" in replaced[1]
    assert settings.out_of_all(INSTALLED) == ["installed ntpsec", "installed systemd-timesyncd"]


IPV6 = "ip -6 address add {address}/64 dev eth0 nodad"


# In the gate the parts are asked: meeting points, interfaces, spellings, the sets of the firewall.
@pytest.mark.long
@pytest.mark.usefixtures("mirror")
def test_a_site_of_ipv6_and_of_whole_names_goes_from_start_to_end(settings: LabUnderTest) -> None:
    """Addresses in two spellings; the names have a domain, and Debian's own line is there."""
    names = whole_names(settings, "te1.cluster.example", "te2.cluster.example")
    for number, (node, name) in enumerate(zip(settings.nodes, names, strict=True), start=1):
        names[name]["cluster_address"] = f"fd88:0:0::1{number}"
        settings.run(
            node, f"{DEBIAN.format(name=name, short=node)}; {IPV6.format(address=f'fd88::1{number}')}"
        )
    before = settings.out_of_all(FILES)

    with site(settings, names):
        playbook(settings)
        again = playbook(settings)
        smoke = provision("smoke", "--quick", "-i", str(settings.inventory), check=False)
        status = provision("status", "-i", str(settings.inventory), check=False)
        settings.out_of_all("echo 'import os; print(os.environ[\"RANK\"])' >/data/jobs/trainer/rank.py")
        job = settings.out("te1", "zerorun --tee all /data/jobs/trainer/rank.py", user=JOB_USER)
        teardown(settings)

    assert not any(changed(again).values())
    assert smoke.returncode == 0, smoke.stdout + smoke.stderr
    assert status.returncode == 0, status.stdout + status.stderr
    assert "1" in job
    assert settings.out_of_all(FILES) == before


# A stand-in whose first boot ends after two seconds, and what a cloud handed to it.
CLOUD_INIT = """mkdir -p /run/cloud-init /var/lib/cloud/instance /etc/cloud/cloud.cfg.d
printf '%s\\n' '#!/bin/sh' \\
 'sleep 2; touch /run/cloud-init/result.json; echo status: done' >/usr/bin/cloud-init
chmod 755 /usr/bin/cloud-init
printf '#cloud-config\\nmanage_etc_hosts: {manages}\\n' >/var/lib/cloud/instance/cloud-config.txt"""


def test_a_first_boot_is_waited_for_and_user_data_that_wins_is_named(settings: LabUnderTest) -> None:
    settings.run("te1", CLOUD_INIT.format(manages="false"))
    settings.run("te2", CLOUD_INIT.format(manages="localhost"))
    before = settings.out("te2", "cat /etc/hosts")

    run = playbook(settings, "--tags", "node_access,host_names", check=False)

    booted = "ls /run/cloud-init/result.json"
    assert settings.out_of_all(booted) == ["/run/cloud-init/result.json"] * 2
    assert "te2: keep /etc/hosts" in said(run)
    assert "/var/lib/cloud/instance/cloud-config.txt:2:manage_etc_hosts: localhost" in said(run)
    assert settings.out("te2", "cat /etc/hosts") == before
    ours = settings.out("te1", "cat /etc/cloud/cloud.cfg.d/99-clusterwright.cfg")
    assert "manage_etc_hosts: false" in ours


def test_a_node_of_another_cluster_is_neither_taken_nor_torn_down(settings: LabUnderTest) -> None:
    record = json.dumps({"name": "theirs", "nodes": [{"name": "te1"}, {"name": "old9"}]})
    settings.run("te1", f"mkdir /etc/clusterwright; echo '{record}' >/etc/clusterwright/cluster.json")
    before = settings.out_of_all(FILES)

    taken = playbook(settings, "--tags", "node_access", check=False)
    torn = playbook(
        settings,
        "playbooks/teardown.yml",
        "-e",
        f"teardown_confirm={settings.name}",
        "--limit",
        "te1",
        check=False,
    )
    freed = playbook(settings, "--tags", "node_access", "-e", "cluster_former_name=theirs")

    for refused, words in ((taken, "No node was changed"), (torn, "Nothing of it was touched")):
        assert "te1: it is a node of the cluster theirs, by its record, together with old9" in said(refused)
        assert words in said(refused)
    assert not any(changed(freed).values())
    assert settings.out_of_all(FILES) == before
    assert json.loads(settings.out("te1", "cat /etc/clusterwright/cluster.json")) == json.loads(record)
