"""Real machines call as a first boot does: with their token, with another's, and to a false controller."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from provision.commands.demo import machines_of
from provision.join.server import listening
from provision.join.tokens import Tokens
from provision.join.user_data import write_user_data
from provision.nodes.arrivals import Arrivals
from tests.conftest import RecordRefusal
from tests.lab.conftest import ROOT, LabUnderTest
from tests.unit.provision.join_site import new_key

FIRST_BOOT = (ROOT / "playbooks/roles/image_cleanup/files/first_boot.py").read_text()
IMAGE = {
    "id": "te1-1",
    "data_path": "/data",
    "data_label": "none",
    "data_options": "noatime",
}
TOLD = "/var/lib/cloud/instance/user-data.txt"
STATE = "/var/lib/clusterwright/first_boot.json"
ANSWERED = "calls this machine|: 4|not signed"
BOOT = f"""
rm -f {STATE}
python3 /root/first_boot.py & boot=$!
until grep -qE '{ANSWERED}' {STATE} 2>/dev/null; do sleep 0.1; done
grep -q {shlex.quote(ANSWERED.split("|", 1)[0])} {STATE} || kill $boot
wait $boot
tr -d '\\n' <{STATE}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Two machines as an image leaves them, the controller that they believe, and user data for both."""

    lab: LabUnderTest
    key: Path
    user_data: Path
    said: list[str]

    def write(self, node: str, path: str, text: str) -> None:
        place = shlex.quote(str(Path(path).parent))
        self.lab.run(node, f"mkdir -p {place}; printf %s {shlex.quote(text)} >{path}; chmod 600 {path}")

    def boots(self, node: str, *, told: str) -> str:
        """What a machine's first boot says once it has its name or a reason why not."""
        self.write(node, TOLD, (self.user_data / f"{told}.json").read_text())
        said = self.lab.run(node, BOOT, timeout_seconds=240).stdout.splitlines()[-1]
        return str(json.loads(said)["joined"])


@pytest.fixture(scope="module")
def blank(spare_lab: LabUnderTest) -> LabUnderTest:
    spare_lab.reset()
    return spare_lab


@pytest.fixture
def site(blank: LabUnderTest, tmp_path: Path) -> Site:
    key = new_key(tmp_path / "join_key")
    found = Site(lab=blank, key=key, user_data=tmp_path / "user_data", said=[])
    public = key.with_name("join_key.pub").read_text()
    for node in blank.nodes:
        found.write(node, "/root/first_boot.py", FIRST_BOOT)
        found.write(node, "/etc/clusterwright/image.json", json.dumps({"image": IMAGE}))
        found.write(node, "/etc/clusterwright/join.json", json.dumps({"controller_key": public}))
    return found


@contextmanager
def waiting(site: Site, *, key: Path) -> Iterator[Arrivals]:
    """A controller that signs with this key, and the user data that it makes."""
    lab = site.lab.lab
    machines, tokens = machines_of(lab), Tokens(folder=site.user_data.parent / "secrets")
    arrivals = Arrivals(machines, tokens, key, lambda name, _: site.said.append(name))
    expected = [machine.address for machine in machines]
    with listening(
        lab.gateway, 0, expected=expected, on_call=arrivals.on_call, report=site.said.append
    ) as port:
        told, expires = f"{lab.gateway}:{port}", time.time() + 600.0
        write_user_data(site.user_data, machines, tokens, controller=told, shared=False, expires=expires)
        yield arrivals


def test_a_machine_joins_with_its_token_and_keeps_none(site: Site) -> None:
    with waiting(site, key=site.key) as arrivals:
        joined = site.boots("te1", told="te1")
        again = site.lab.run("te1", "python3 /root/first_boot.py").stdout

    assert joined.endswith("calls this machine te1")
    assert again == ""
    assert list(arrivals.arrived) == ["te1"]
    assert (
        site.lab.out("te1", f"hostname; ls {TOLD} 2>/dev/null; grep -rl token /etc/clusterwright; true")
        == "te1"
    )


@pytest.mark.attack("network")
def test_a_machine_with_anothers_token_gets_no_name_and_both_sides_say_why(
    site: Site, record_refusal: RecordRefusal
) -> None:
    with waiting(site, key=site.key) as arrivals:
        joined = site.boots("te2", told="te1")
    record_refusal(joined)

    why = f"its token is for te1 at {site.lab.address('te1')}, not for a machine at {site.lab.address('te2')}"
    assert joined.endswith(f"403 {why}")
    assert site.said == [f"{site.lab.address('te2')} calls and is refused: {why}"]
    assert not arrivals.arrived


@pytest.mark.attack("network")
def test_a_machine_that_was_made_anew_with_the_same_user_data_is_refused(
    site: Site, record_refusal: RecordRefusal
) -> None:
    with waiting(site, key=site.key):
        site.boots("te1", told="te1")
        site.lab.run(
            "te1", "cp /etc/machine-id /root; tr -d - </proc/sys/kernel/random/uuid >/etc/machine-id"
        )
        anew = site.boots("te1", told="te1")
        site.lab.run("te1", "cp /root/machine-id /etc/machine-id")

    record_refusal(anew)
    assert "409 another machine called with the token of te1 before, differing in machine" in anew


@pytest.mark.attack("image")
def test_a_false_controller_that_has_the_image_is_not_believed(
    site: Site, tmp_path: Path, record_refusal: RecordRefusal
) -> None:
    """It even has the token: only the key of the real one signs what the machine takes."""
    before = site.lab.out("te1", "cat /root/.ssh/authorized_keys")
    with waiting(site, key=new_key(tmp_path / "attacker")):
        joined = site.boots("te1", told="te1")
    record_refusal(joined)

    assert joined.endswith("the answer is not signed by our controller")
    assert site.lab.out("te1", "cat /root/.ssh/authorized_keys") == before
    assert site.lab.out("te1", f"ls {TOLD}") == TOLD
