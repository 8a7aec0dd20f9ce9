"""Who is let in by a key alone, as OpenSSH's auth.c and match.c decide it."""

from __future__ import annotations

import pytest

from provision.roles.sshd_policy.admission import against_jobs, key_files
from tests.unit.provision.roles.sshd_policy.views import connection, settings

HOME = "~trainer/.ssh/authorized_keys"


def refused(
    *, user: str = "trainer", groups: tuple[str, ...] = ("trainer",), keys: str = HOME, **values: str
) -> list[str]:
    one = connection(user=user, groups=groups)
    return list(against_jobs(one, settings(**values), keys))


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"allowusers": "ann|trainer"},
        {"allowusers": "tr*er"},
        {"allowusers": "*@10.0.0.2"},
        {"allowusers": "trainer@10.0.*"},
        {"allowusers": "trainer@10.0.0.0/24"},
        {"allowusers": "trainer@!10.0.0.3,10.0.0.*"},
        {"denyusers": "ann|trainer@10.1.*"},
        {"allowgroups": "admin|train??"},
        {"denygroups": "admin"},
        {"permitrootlogin": "no"},
        {"authenticationmethods": "any"},
        {"authenticationmethods": "password publickey"},
        {"authorizedkeysfile": ".ssh/authorized_keys .ssh/authorized_keys2"},
        {"authorizedkeysfile": "/etc/keys/%u %h/.ssh/authorized_keys"},
        {"authorizedkeysfile": "/home/%u/.ssh/authorized_keys"},
        {"forcecommand": "none", "chrootdirectory": "none"},
        {"pubkeyacceptedalgorithms": "rsa-sha2-512,ssh-ed25519"},
    ],
)
def test_the_user_of_jobs_is_let_in(values: dict[str, str]) -> None:
    assert refused(**values) == []


@pytest.mark.parametrize(
    "values",
    [
        {"allowusers": "ann|root"},
        {"allowusers": "trainer@10.1.*"},
        {"allowusers": "trainer@10.1.0.0/24"},
        {"allowusers": "trainer@!10.0.0.2,10.0.0.*"},
        {"denyusers": "*"},
        {"denyusers": "trainer@10.0.0.2"},
        {"allowgroups": "admin"},
        {"denygroups": "train*"},
        {"pubkeyauthentication": "no"},
        {"authenticationmethods": "publickey,keyboard-interactive:pam"},
        {"authenticationmethods": "password"},
        {"authorizedkeysfile": "/etc/keys/%u"},
        {"authorizedkeysfile": "none"},
        {"forcecommand": "internal-sftp"},
        {"chrootdirectory": "/srv"},
        {"pubkeyacceptedalgorithms": "rsa-sha2-512"},
    ],
)
def test_what_keeps_the_user_of_jobs_out_is_told_by_its_keyword(values: dict[str, str]) -> None:
    assert refused(**values) == list(values)


def test_root_is_kept_out_by_what_is_said_of_root() -> None:
    assert refused(user="root", keys="~root/.ssh/authorized_keys", permitrootlogin="no") == [
        "permitrootlogin"
    ]
    assert refused(user="root", keys="~root/.ssh/authorized_keys", permitrootlogin="without-password") == []


def test_keys_may_stand_elsewhere() -> None:
    where = settings(authorizedkeysfile="/etc/keys/%u /etc/keys/%%all none")

    assert refused(keys="/etc/keys/trainer", authorizedkeysfile="/etc/keys/%u") == []
    assert key_files(connection(), where) == ["/etc/keys/trainer", "/etc/keys/%all"]
