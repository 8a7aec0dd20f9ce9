"""What a user without rights leaves in his home is no way to what only root may read or write."""

from __future__ import annotations

import pytest

from tests.conftest import RecordRefusal
from tests.lab.conftest import LabUnderTest, playbook, said_from

# As that user, but for a second name of a file, which the kernel leaves to root (fs.protected_hardlinks).
PREPARED = {
    "key": "runuser -u train -- ln -s /root/only-root /home/train/.ssh/authorized_keys",
    "folder": "runuser -u train -- sh -c 'rmdir ~train/.ssh && ln -s /etc ~train/.ssh'",
    "name": "ln /root/only-root /home/train/.ssh/authorized_keys",
}
# In the gate tests/unit/playbooks/test_node_files.py asks them of the module.
OTHERS = sorted(PREPARED.keys() - {"folder"})
STATE = (
    "stat -c '%n %U %a' /root/only-root; cat /root/only-root; ls -l /home/train/.ssh /etc/authorized_keys; "
    "grep -rls topmost-secret /home /var/lib /etc; true"
)


@pytest.fixture
def with_user(spare_lab: LabUnderTest) -> LabUnderTest:
    spare_lab.reset()
    spare_lab.out_of_all("useradd -m -s /bin/bash train && install -d -m 700 -o train ~train/.ssh")
    spare_lab.out_of_all("umask 077; echo topmost-secret >/root/only-root")
    return spare_lab


@pytest.mark.attack("user")
@pytest.mark.parametrize("way", ["folder", *(pytest.param(way, marks=pytest.mark.long) for way in OTHERS)])
def test_what_a_user_prepared_is_refused_by_name(
    way: str, mirror: None, with_user: LabUnderTest, record_refusal: RecordRefusal
) -> None:
    with_user.run("te1", PREPARED[way])
    before = with_user.out("te1", STATE)

    refused = playbook(with_user, "--tags", "ssh_trust", "-e", "cluster_user=train", check=False)

    assert refused.returncode != 0
    assert "/home/train/.ssh" in refused.stdout
    record_refusal(said_from("/home/train/.ssh", refused))
    assert "topmost-secret" not in refused.stdout + refused.stderr
    assert with_user.out("te1", STATE) == before
