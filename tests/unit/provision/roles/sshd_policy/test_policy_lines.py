"""sshd is told nothing looser than what the site has set, before any other file and in no Match."""

from __future__ import annotations

import pytest

from provision.roles.sshd_policy.policy_lines import printed, reads_ours, switches_passwords_off, wanted_lines
from tests.unit.provision.roles.sshd_policy.views import OURS, lines_in

KEYS_ONLY = [
    "PubkeyAuthentication yes",
    "PasswordAuthentication no",
    "KbdInteractiveAuthentication no",
    "PermitRootLogin prohibit-password",
    "MaxStartups 100:30:300",
]


def lines(*, password_login: bool = False, **theirs: str) -> list[str]:
    settings = {keyword: [value] for keyword, value in theirs.items()}
    return wanted_lines(settings, max_startups="100:30:300", password_login=password_login)


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


@pytest.mark.parametrize(
    "keyword", ["passwordauthentication", "kbdinteractiveauthentication", "permitrootlogin"]
)
def test_a_key_is_tried_where_passwords_end(keyword: str) -> None:
    assert switches_passwords_off({keyword: ["yes"]}, password_login=False)
    assert not switches_passwords_off({keyword: ["yes"]}, password_login=True)
    assert not switches_passwords_off({keyword: ["no"]}, password_login=False)


@pytest.mark.parametrize(
    ("texts", "read"),
    [
        ([OURS, "PasswordAuthentication yes"], True),
        (["AllowUsers ann", OURS], True),
        (["PasswordAuthentication yes", OURS], False),
        (["passwordauthentication=no  # as ours", OURS], True),
        (["PermitRootLogin no", OURS], False),
        (["Match User bob: PasswordAuthentication yes", OURS], True),  # that block ends with its file
        ([f"Match User bob: {OURS}"], False),
        ([], False),
    ],
)
def test_our_file_counts_where_nothing_before_it_says_otherwise(texts: list[str], read: bool) -> None:
    assert reads_ours(lines_in(texts), KEYS_ONLY) is read


def test_what_we_do_not_say_may_stand_before_our_file() -> None:
    assert reads_ours(lines_in(["PermitRootLogin no", OURS]), lines(permitrootlogin="no"))
