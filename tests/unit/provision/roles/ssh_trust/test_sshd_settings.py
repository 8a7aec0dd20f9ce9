"""sshd is told nothing looser than what the site has set; what forbids a cluster is named with its file."""

from __future__ import annotations

import pytest

from provision.roles.ssh_trust.sshd_settings import (
    printed,
    reads_ours,
    refusals,
    settings_of,
    switches_passwords_off,
    wanted_lines,
)

KEYS_ONLY = [
    "PubkeyAuthentication yes",
    "PasswordAuthentication no",
    "KbdInteractiveAuthentication no",
    "PermitRootLogin prohibit-password",
    "MaxStartups 100:30:300",
]
OWN_INCLUDE = "Include /etc/ssh/sshd_config.d/10-clusterwright.conf"


def lines(*, password_login: bool = False, **theirs: str) -> list[str]:
    return wanted_lines(theirs, max_startups="100:30:300", password_login=password_login)


def asked(probe: list[str], *, cluster_user: str = "train", password_login: bool = False) -> list[str]:
    return refusals(probe, cluster_user=cluster_user, password_login=password_login)


def test_a_site_that_set_nothing_gets_keys_only() -> None:
    assert lines(permitrootlogin="without-password", maxstartups="10:30:100") == KEYS_ONLY


@pytest.mark.parametrize("root", ["no", "forced-commands-only"])
def test_what_is_stricter_for_root_stays(root: str) -> None:
    assert lines(permitrootlogin=root) == [line for line in KEYS_ONLY if "RootLogin" not in line]


def test_larger_limits_are_not_lowered() -> None:
    assert lines(maxstartups="500:20:200")[-1] == "MaxStartups 500:20:300"


def test_passwords_stay_where_the_site_wants_them() -> None:
    assert lines(password_login=True) == ["PubkeyAuthentication yes", "MaxStartups 100:30:300"]


def test_lines_are_compared_as_sshd_prints_them() -> None:
    assert printed(["PermitRootLogin prohibit-password"]) == ["permitrootlogin without-password"]


def test_the_sites_own_settings_are_told_from_those_of_now() -> None:
    probe = ["python True root True", "now permitrootlogin without-password", "theirs permitrootlogin no"]

    assert settings_of(probe, "theirs") == {"permitrootlogin": "no"}
    assert settings_of(probe, "now") == {"permitrootlogin": "without-password"}
    assert settings_of(probe[:2], "theirs") == settings_of(probe, "now")


@pytest.mark.parametrize(
    "now",
    [{"passwordauthentication": "yes"}, {"kbdinteractiveauthentication": "yes"}, {"permitrootlogin": "yes"}],
)
def test_a_key_is_tried_where_passwords_end(now: dict[str, str]) -> None:
    assert switches_passwords_off(now, password_login=False)
    assert not switches_passwords_off(now, password_login=True)
    assert not switches_passwords_off(dict.fromkeys(now, "no"), password_login=False)


def test_a_setting_that_forbids_a_cluster_is_named_with_its_file() -> None:
    probe = ["now permitrootlogin no", "line /etc/ssh/sshd_config.d/00-x.conf:3:PermitRootLogin no"]

    (found,) = asked(probe, cluster_user="root")

    assert "'PermitRootLogin no' (/etc/ssh/sshd_config.d/00-x.conf:3)" in found
    assert "set cluster_user" in found
    assert asked(probe) == []
    assert "keys" in asked(["now pubkeyauthentication no"])[0]


@pytest.mark.parametrize(
    ("line", "on", "locks_out"),
    [
        ("AuthenticationMethods publickey,password", "password", True),
        ("authenticationmethods=publickey,keyboard-interactive:pam # Duo", "kbdinteractive", True),
        ('  AuthenticationMethods "publickey,password" password,hostbased', "password", True),
        ("AuthenticationMethods publickey,password publickey", "password", False),
        ("AuthenticationMethods publickey", "password", False),
        ("AuthenticationMethods any", "password", False),
        ("AuthenticationMethods publickey,password", "kbdinteractive", False),  # nobody could before, either
    ],
)
def test_users_who_need_a_password_beside_their_key_are_not_locked_out(
    line: str, on: str, locks_out: bool
) -> None:
    probe = [f"now {on}authentication yes", f"line /etc/ssh/sshd_config:120:{line}"]

    found = asked(probe)

    assert len(found) == locks_out
    assert all(
        "/etc/ssh/sshd_config:120" in text and "cluster_password_login: true" in text for text in found
    )
    assert asked(probe, password_login=True) == []


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("Include /etc/ssh/sshd_config.d/*.conf\nPasswordAuthentication yes\n", True),
        ("Port 22\n\tinclude = sshd_config.d/*.conf\n", True),
        (f"{OWN_INCLUDE}\nUsePAM yes\n", True),
        ('Include /etc/ssh/other.conf "/etc/ssh/sshd_config.d/*.conf"\n', True),
        ("# Include /etc/ssh/sshd_config.d/*.conf\n", False),
        ("PasswordAuthentication yes\nInclude /etc/ssh/sshd_config.d/*.conf\n", False),
        ("Match User bob\nInclude /etc/ssh/sshd_config.d/*.conf\n", False),
        ("Include /etc/ssh/sshd_config.d/99-*.conf\n", False),
        ("", False),
    ],
)
def test_our_file_counts_only_where_it_is_read_before_what_it_sets(text: str, read: bool) -> None:
    assert reads_ours(text) is read
