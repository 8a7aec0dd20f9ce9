"""No job on nodes that no smoke test has proven: the certificate on real nodes, and all that voids it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.conftest import RecordRefusal
from tests.lab.conftest import CERTIFICATE, PREFIX, LabUnderTest, as_first_proven, provision
from tests.lab.jobs import ALL_BUT_SSH, firewall, python, smoke

KNOWN = "/home/trainer/.ssh/known_hosts"
SHORT = ("--max-bytes", "65536")


@pytest.fixture(scope="module")
def proven(converged_lab: LabUnderTest) -> LabUnderTest:
    """The lab after a smoke test on a node that passed."""
    passed = smoke(converged_lab, *SHORT)
    assert passed.returncode == 0, passed.printed
    return converged_lab


def start(lab: LabUnderTest, *words: str) -> tuple[int, str]:
    """Starts a job of four words; its status and what was said."""
    command = f"cd /tmp && zerorun --log-dir /tmp/cw_gate {' '.join(words)} --no-python hostname"
    finished = lab.run("te1", command, check=False)
    lab.out_of_all("rm -rf /tmp/cw_gate")
    return finished.returncode, finished.stdout + finished.stderr


def certificate(lab: LabUnderTest, node: str) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(lab.out(node, f"cat {CERTIFICATE}"))
    return values


@contextmanager
def instead(lab: LabUnderTest, node: str, command: str, path: str = CERTIFICATE) -> Iterator[None]:
    """After the command, on the node; the file is put back afterwards."""
    lab.run(node, f"cp -p {path} /root/kept && {command}")
    try:
        yield
    finally:
        lab.run(node, f"mv /root/kept {path}")


@contextmanager
def put_back(lab: LabUnderTest) -> Iterator[None]:
    """Every node has the certificate that it has now, whatever the block does to it."""
    lab.out_of_all(f"cp -p {CERTIFICATE} /root/certificate.json")
    try:
        yield
    finally:
        lab.out_of_all(f"mv /root/certificate.json {CERTIFICATE}")


def test_every_node_holds_the_certificate_and_the_job_starts(proven: LabUnderTest) -> None:
    held = [certificate(proven, node) for node in proven.nodes]

    assert held == [held[0]] * 4
    assert held[0]["certificate"]["nodes"] == dict.fromkeys(proven.nodes, 1)
    assert len(held[0]["certificate"]["environment"]) == 64
    assert held[0]["certificate"]["figures"]["busbw_gb_s"] > 0
    status, said = start(proven)
    assert status == 0, said


@pytest.mark.attack("node")
def test_who_proved_the_nodes_is_said_and_no_node_speaks_as_the_controller(
    proven: LabUnderTest, record_refusal: RecordRefusal
) -> None:
    _, by_node = start(proven)
    sign = "ssh-keygen -q -Y sign -n clusterwright-smoke-controller -f /etc/ssh/ssh_host_ed25519_key"
    forge = (
        "import json, subprocess; path = '/etc/clusterwright/certificate.json'; "
        "held = json.load(open(path)); "
        "text = json.dumps(held['certificate'], sort_keys=True, separators=(',', ':')); "
        f"held['signature'] = subprocess.run('{sign}'.split(), input=text, text=True, capture_output=True)"
        ".stdout; open(path, 'w').write(json.dumps(held))"
    )
    with put_back(proven):
        _, by_controller = start(as_first_proven(proven))
        proven.run("te3", f'python3 -c "{forge}"')
        status, refused = start(proven)
    record_refusal(refused)

    assert "proven by te1;" in by_node
    assert "proven by the controller;" in by_controller
    assert status == 1
    assert "te3 (rank 2): its certificate is not signed by the controller, or was altered since" in refused


def test_without_the_gate_the_log_says_so(proven: LabUnderTest) -> None:
    with instead(proven, "te2", f"rm {CERTIFICATE}"):
        command = "cd /tmp && zerorun --no-gate --log-dir /tmp/cw_gate --no-python hostname"
        finished = proven.run("te1", command)
        account = json.loads(proven.out("te1", "cat /tmp/cw_gate/job.json"))
        proven.out_of_all("rm -rf /tmp/cw_gate")

    assert "--no-gate: whether these nodes work together was not asked" in finished.stderr
    assert account["certificate"] == "not asked for (--no-gate)"


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (f"rm {CERTIFICATE}", "holds no certificate"),
        (
            f"sed -i 's/2026/2027/' {CERTIFICATE}",
            "its certificate is not signed by te1, or was altered",
        ),
        (f"truncate -s 100 {CERTIFICATE}", "its certificate cannot be read"),
    ],
    ids=["none", "tampered", "torn"],
)
def test_a_node_without_a_valid_certificate_is_refused_and_the_others_are_offered(
    proven: LabUnderTest, command: str, words: str
) -> None:
    with instead(proven, "te3", command):
        status, said = start(proven)

    assert status == 1, said
    assert f"te3 (rank 2): {words}" in said
    assert "Nothing was started. Proven together, and well: --include te1@te2@te4" in said
    assert "te1 (rank 0)" not in said


def test_another_environment_is_refused(proven: LabUnderTest) -> None:
    """One that is exactly as its own record says, as after a build from other locks."""
    record, changed = f"{PREFIX}/.clusterwright/record.json", f"{PREFIX}/lib/python3.11/site-packages/six.py"
    digest = f"python3 /usr/local/lib/clusterwright/environment_digest.py --prefix {PREFIX}"
    build = f"echo >{changed} && {digest} --record --built-from other >/root/said"
    try:
        with instead(proven, "te4", build, record):
            status, said = start(proven)
    finally:
        proven.run("te4", f"rm -f {changed}")

    assert status == 1, said
    assert "te4 (rank 3): its certificate is for the environment" in said
    assert "and it has" in said
    assert start(proven)[0] == 0


# As pip leaves it; tests/lab/test_layer.py has pip itself.
SIX = f"{PREFIX}/lib/python3.11/site-packages/six-1.17.0.dist-info"


def test_a_package_that_was_installed_since_is_named_and_not_covered(proven: LabUnderTest) -> None:
    proven.run("te4", f"mkdir {SIX} && echo 'Name: six' >{SIX}/METADATA")
    try:
        status, said = start(proven)
        open_status, without = start(proven, "--no-gate")
        verified = provision("env", "verify", "-i", str(proven.inventory), check=False)
    finally:
        proven.run("te4", f"rm -r {SIX}")

    assert status == 1, said
    words = (
        "its environment was changed since, which its certificate does not cover: six 1.17.0 was installed"
    )
    assert f"te4 (rank 3): {words}. `provision env verify` names all of it" in said
    assert "Proven together, and well: --include te1@te2@te3" in said
    assert open_status == 0, without
    assert verified.returncode == 1, verified.stdout + verified.stderr
    assert "te4: somebody added six 1.17.0; 1 file differs from its record" in verified.stdout
    assert "te1: as it was built" in verified.stdout
    assert start(proven)[0] == 0


def test_another_set_of_nodes_is_refused_and_a_part_of_the_proven_ones_may_start(
    proven: LabUnderTest,
) -> None:
    te3 = proven.address("te3")
    with instead(proven, "te1", f"echo '{te3} te9' >> /etc/hosts", "/etc/hosts"):
        proven.run("te1", "(cat /etc/clusterwright/hostfile; echo te9 slots=1) > /tmp/hosts")
        proven.run("te1", f"ssh-keyscan -t ed25519 {te3} | sed s/^{te3}/te9/ > {KNOWN}")
        status, said = start(proven, "--hostfile", "/tmp/hosts")
        proven.run("te1", f"rm {KNOWN} /tmp/hosts")

    assert status == 1, said
    assert "its certificate is for te1, te2, te3, te4, tested without te9" in said
    status, said = start(proven, "--include", "te2@te1")
    assert status == 0, said


def test_a_certificate_expires(proven: LabUnderTest) -> None:
    pair = ("--include", "te1@te2")
    with put_back(proven):
        proven.out_of_all(f"rm {CERTIFICATE}")
        briefly = smoke(proven, *SHORT, *pair, "--valid-days", "0.00001")
        status, said = start(proven, *pair)

    assert briefly.returncode == 0, briefly.printed
    assert status == 1, said
    assert all(f"te{rank + 1} (rank {rank}): its certificate expired on 20" in said for rank in range(2))


def test_a_test_that_fails_takes_the_certificate_of_those_it_names(proven: LabUnderTest) -> None:
    with put_back(proven):
        with firewall(proven, "te3", *ALL_BUT_SSH):
            failed = smoke(proven, *SHORT)
        status, said = start(proven)

    assert failed.returncode == 1
    assert status == 1, said
    assert "te3 (rank 2): holds no certificate" in said
    assert "--include te1@te2@te4" in said


def test_a_test_of_fewer_nodes_leaves_the_certificate_of_all(proven: LabUnderTest) -> None:
    before = certificate(proven, "te2")

    assert smoke(proven, *SHORT, "--include", "te1@te2").returncode == 0

    assert certificate(proven, "te2") == before


def test_collectives_are_left_out_only_while_every_node_holds_its_certificate(proven: LabUnderTest) -> None:
    again = smoke(proven, *SHORT, "--unless-proven")

    assert again.returncode == 0, again.printed
    assert again.result["left_out"].startswith("proven until 20")
    assert "import" not in again.result["phases"]
    assert all(pair["bytes_per_s"] for pair in again.result["pairs"])


# In the gate a certificate that has expired is made anew by the smoke test of two nodes (above).
@pytest.mark.long
def test_collectives_are_not_left_out_where_a_node_lacks_its_certificate(proven: LabUnderTest) -> None:
    proven.run("te3", f"rm {CERTIFICATE}")
    renewed = smoke(proven, *SHORT, "--unless-proven")

    assert renewed.returncode == 0, renewed.printed
    assert renewed.result["left_out"] == ""
    assert certificate(proven, "te3") == certificate(proven, "te1")


def test_a_key_that_cannot_sign_is_refused_before_the_test(proven: LabUnderTest) -> None:
    proven.run("te1", "echo nonsense > /tmp/nokey; chmod 600 /tmp/nokey; chown trainer /tmp/nokey")
    finished = proven.run("te1", f"{python(proven)} -P -m runtime smoke --key /tmp/nokey", check=False)

    assert finished.returncode == 2
    assert "cannot sign certificates with the key /tmp/nokey" in finished.stderr
