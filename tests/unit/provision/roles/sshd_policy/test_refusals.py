"""What of a site keeps nodes apart or an owner out: its line and file, who was asked for, how to go on."""

from __future__ import annotations

import json

import pytest

from provision.errors import ProvisionError
from provision.roles.sshd_policy.refusals import Asked, refusals
from provision.roles.sshd_policy.view import View, view_of
from tests.unit.provision.roles.sshd_policy.views import connection, settings, view

ON, OFF = settings(passwordauthentication="yes"), settings(passwordauthentication="no")


def asked(view: View, **changed: object) -> list[str]:
    known: dict[str, object] = {
        "policed": True,
        "trusted": True,
        "passwords_stay": False,
        "keys_file": "~trainer/.ssh/authorized_keys",
        "addresses_known": True,
        "address": "10.0.0.1",
        "port": 22,
    }
    return refusals(view, Asked(**{**known, **changed}))  # type: ignore[arg-type]


def test_a_site_that_set_nothing_is_taken() -> None:
    assert asked(view(connection(), connection("you", "10.9.0.1", user="ubuntu"))) == []


def test_users_that_a_site_allows_are_named_with_file_line_and_who_is_missing() -> None:
    allowed = settings(allowusers="ubuntu|ann")
    nodes = [connection("te2", "10.0.0.2", theirs=allowed), connection("te3", "10.0.0.3", theirs=allowed)]

    (found,) = asked(view(*nodes, lines=["AllowUsers ubuntu ann"], theirs=allowed))

    assert found == (
        "sshd would not let trainer, the user of jobs, in from te2 (10.0.0.2), te3 (10.0.0.3): 'AllowUsers "
        "ubuntu ann' (/etc/ssh/sshd_config:1). site.yml never changes that line: add trainer to it yourself "
        "and reload sshd, or set cluster_user to one that it lists"
    )


def test_a_match_that_decides_is_named_with_its_criteria() -> None:
    methods = settings(authenticationmethods="publickey,password")
    one = connection(theirs=methods)

    (found,) = asked(
        view(
            one,
            lines=[
                "AuthenticationMethods any",
                "Match Address 10.*: AuthenticationMethods publickey,password",
            ],
            theirs=settings(authenticationmethods="any"),
        )
    )

    assert "(/etc/ssh/sshd_config:2, in Match Address 10.*)" in found
    assert "'Match User trainer Address 10.0.0.2' with 'AuthenticationMethods publickey'" in found


def test_keys_that_stand_elsewhere_are_an_option_of_one_line() -> None:
    elsewhere = settings(authorizedkeysfile="/etc/ssh/keys/%u")
    node = view(connection(theirs=elsewhere), lines=["AuthorizedKeysFile /etc/ssh/keys/%u"], theirs=elsewhere)

    (found,) = asked(node)

    assert "set ssh_trust_authorized_keys to a file that sshd reads (/etc/ssh/keys/trainer)" in found
    assert asked(node, keys_file="/etc/ssh/keys/trainer") == []


def test_a_setting_that_forbids_root_is_named_where_jobs_are_root_s() -> None:
    forbidden = settings(permitrootlogin="no")
    node = view(connection(user="root", theirs=forbidden), lines=["PermitRootLogin no"], theirs=forbidden)

    (found,) = asked(node, keys_file="~root/.ssh/authorized_keys")

    assert "'PermitRootLogin no' (/etc/ssh/sshd_config:1)" in found
    assert "set cluster_user" in found


def test_you_are_not_locked_out_by_lines_that_no_sshd_has_read_yet() -> None:
    denied = settings(denyusers="ubuntu")
    you = connection("you", "10.9.0.1", user="ubuntu", theirs=denied)

    (found,) = asked(view(you, lines=["DenyUsers ubuntu"], theirs=denied))

    assert "sshd's files refuse ubuntu from 10.9.0.1, which is you: 'DenyUsers ubuntu'" in found
    assert "cluster_without: [sshd_policy]" in found
    assert asked(view(you), policed=False) == []


def test_a_match_that_keeps_passwords_for_a_connection_that_counts_is_named() -> None:
    kept = connection("", "10.0.0.1", then=ON)
    lines = ["Match Address 10.0.0.0/8: PasswordAuthentication yes"]

    (found,) = asked(view(kept, connection(then=OFF), lines=lines, theirs=ON))

    assert "'PasswordAuthentication yes' (/etc/ssh/sshd_config:1, in Match Address 10.0.0.0/8)" in found
    assert "keeps passwords for trainer from 10.0.0.1" in found
    assert "cluster_password_login: true" in found
    assert asked(view(kept, lines=lines), passwords_stay=True) == []
    assert asked(view(kept, lines=lines), policed=False) == []


def test_an_sshd_that_listens_elsewhere_is_named() -> None:
    apart = View(now=ON, theirs=ON, lines=[], connections=[], listening=["192.0.2.1", "::1"])

    (found,) = asked(apart)

    assert "at 10.0.0.1, port 22, and there it listens at 192.0.2.1, ::1 alone" in found
    assert asked(apart, address="192.0.2.1") == []
    assert asked(apart, address="te1.example") == []
    assert asked(View(now=ON, theirs=ON, lines=[], connections=[], listening=["::"])) == []


def test_files_that_sshd_does_not_take_are_named_before_anything_else() -> None:
    (found,) = asked(view(error="/etc/ssh/sshd_config: line 3: Bad configuration option: Foo\n"))

    assert "line 3: Bad configuration option: Foo" in found


@pytest.mark.parametrize("left", ["trusted", "addresses_known"])
def test_nobody_judges_nodes_that_get_no_key_or_come_from_where_nobody_knows(left: str) -> None:
    denied = settings(denyusers="*")

    assert asked(view(connection(theirs=denied), theirs=denied), **{left: False}) == []


@pytest.mark.parametrize(
    ("line", "on", "locks_out"),
    [
        ("AuthenticationMethods publickey,password", "password", True),
        ("authenticationmethods=publickey,keyboard-interactive:pam # Duo", "kbdinteractive", True),
        ('AuthenticationMethods "publickey,password" password,hostbased', "password", True),
        ("AuthenticationMethods publickey,password publickey", "password", False),
        ("AuthenticationMethods publickey", "password", False),
        ("AuthenticationMethods any", "password", False),
        ("AuthenticationMethods publickey,password", "kbdinteractive", False),  # nobody could before, either
    ],
)
def test_users_who_need_a_password_beside_their_key_are_not_locked_out(
    line: str, on: str, locks_out: bool
) -> None:
    node = view(lines=[line], theirs=settings(**{f"{on}authentication": "yes"}))

    found = asked(node)

    assert len(found) == locks_out
    assert all("/etc/ssh/sshd_config:1" in text and "cluster_password_login: true" in text for text in found)
    assert asked(node, passwords_stay=True) == []


@pytest.mark.parametrize("text", ["", "{", "{}", '{"settings": 3}', json.dumps({"settings": [{"a": 1}]})])
def test_an_answer_of_another_kind_is_an_error_with_a_way_on(text: str) -> None:
    with pytest.raises(ProvisionError, match="sshd -T"):
        view_of(["python True root True", f"sshd {text}"])
