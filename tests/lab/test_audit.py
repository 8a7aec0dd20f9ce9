"""What a node that was taken over leaves on another, and what `provision audit` says of it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.conftest import RecordRefusal
from tests.lab.conftest import LabUnderTest, made, playbook, provision

TRUST = ("--tags", "node_access,host_names,ssh_trust")
LEFT = (
    "cp /usr/bin/id /usr/local/bin/id2; chmod 4755 /usr/local/bin/id2; "
    "chmod 644 /etc/ssh/ssh_host_ecdsa_key; echo '# x' >> /etc/ssh/ssh_config.d/10-clusterwright.conf; "
    "systemd-run --quiet --unit planted python3 -m http.server 4444; "
    "printf x >> /usr/bin/passwd; sleep 1"
)
WORDS = (
    "te1: /root/.ssh/authorized_keys:",
    "its other half seems to be on te2 (/root/.ssh/id_ed25519.pub)",
    "/usr/local/bin/id2: it runs with the rights",
    "/etc/ssh/ssh_host_ecdsa_key has mode 0644",
    "/etc/ssh/ssh_config.d/10-clusterwright.conf: it was changed since site.yml wrote it",
    "listens on tcp/4444 at 0.0.0.0",
    "/usr/bin/passwd: its content is not that of its package",
)


@pytest.fixture(scope="module")
def audited(lab_machine: None) -> Iterator[LabUnderTest]:
    yield from made("audited", "10.77.224.0/24", 2)


def audit(lab: LabUnderTest, *words: str) -> tuple[int, list[str]]:
    """The status, and each finding as a line."""
    done = provision("audit", "-i", str(lab.inventory), "--json", *words, check=False, timeout_seconds=590)
    findings = json.loads(done.stdout)["findings"]
    return done.returncode, [f"{one['node']}: {one['what']}: {one['why']}" for one in findings]


@pytest.mark.attack("left behind")
def test_what_was_planted_is_named_and_what_site_yml_put_there_is_not(
    audited: LabUnderTest, record_refusal: RecordRefusal
) -> None:
    playbook(audited, *TRUST)
    clean = audit(audited)
    public = audited.out("te2", "ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/id_ed25519; cat ~/.ssh/*25519.pub")
    audited.run("te1", f"echo '{public}' >> ~/.ssh/authorized_keys; {LEFT}")
    before = audited.out("te1", "sha256sum /root/.ssh/authorized_keys /var/lib/clusterwright/journal.json")

    status, found = audit(audited)
    for line in found:
        record_refusal(line)

    assert clean == (0, [])
    assert status == 1
    assert [words for words in WORDS if not any(words in line for line in found)] == []
    assert len(found) == len(WORDS) - 1, found
    after = audited.out("te1", "sha256sum /root/.ssh/authorized_keys /var/lib/clusterwright/journal.json")
    assert after == before


def test_a_key_that_the_inventory_knows_is_none(audited: LabUnderTest) -> None:
    public = audited.out("te2", "cat /root/.ssh/id_ed25519.pub")
    hosts = audited.inventory / "group_vars" / "all" / "known.yml"
    hosts.parent.mkdir(parents=True, exist_ok=True)
    hosts.write_text(json.dumps({"cluster_known_keys": [public]}))

    status, found = audit(audited, "--keys-only")
    hosts.unlink()

    assert (status, found) == (0, [])


def test_a_node_that_is_off_is_a_finding(audited: LabUnderTest) -> None:
    audited.power_off("te2")

    status, found = audit(audited, "--keys-only")

    assert status == 1
    assert any(line.startswith("te2: the node: it was not audited") for line in found)
