"""The running sshd, and what its files say for connections, against what it was told."""

from __future__ import annotations

import json
from typing import Any

import pytest

from provision.errors import ProvisionError
from provision.roles.sshd_policy.live_daemon import offers_too_much, policy_problems

VIEW: dict[str, Any] = {
    "error": "",
    "now": {},
    "theirs": {},
    "lines": [],
    "settings": [{"passwordauthentication": ["no"]}, {"passwordauthentication": ["yes"]}],
    "connections": [],
    "listening": [],
}
REFUSED = "root@10.77.0.11: Permission denied (publickey)."


def said(stdout: str, *, rc: int = 0, stderr: str = "") -> dict[str, object]:
    return {"rc": rc, "stdout": stdout, "stderr": stderr}


KEYS_ONLY = {
    "settings": said("port 22\npasswordauthentication no"),
    "offered": said("", rc=255, stderr=REFUSED),
    "view": said(f"sshd {json.dumps(VIEW)}"),
}


def problems(**changed: dict[str, object]) -> list[str]:
    return policy_problems(KEYS_ONLY | changed, settings=["passwordauthentication no"], password_login=False)


def test_keys_only_is_no_problem() -> None:
    assert problems() == []


def test_every_way_in_by_a_password_is_a_problem() -> None:
    offers = "root@10.77.0.11: Permission denied (publickey,password)."

    assert problems(settings=said("passwordauthentication yes")) == [
        "sshd has 'passwordauthentication yes', wanted 'passwordauthentication no'"
    ]
    assert problems(offered=said("", rc=255, stderr=offers)) == [
        "the running sshd offers publickey,password, wanted publickey alone"
    ]
    assert problems(offered=said("")) == ["a login without a key was not refused as it should be: nothing"]
    assert "refuses the configuration: bad line" in problems(settings=said("", rc=1, stderr="bad line"))[0]
    with pytest.raises(ProvisionError, match="learn what its sshd is set to"):
        problems(view=said(""))


def test_a_match_in_which_passwords_stayed_is_a_problem() -> None:
    one = {"from": "te2", "user": "trainer", "home": "/", "groups": [], "address": "10.0.0.2", "host": "te2"}
    line = {
        "path": "/a",
        "number": 7,
        "match": "User *",
        "keyword": "passwordauthentication",
        "text": "P yes",
    }
    told = {**VIEW, "lines": [line], "connections": [{**one, "now": 1, "theirs": 1, "then": 0}]}

    (found,) = problems(view=said(f"sshd {json.dumps(told)}"))

    assert "'P yes' (/a:7, in Match User *) keeps passwords for trainer from te2 (10.0.0.2)" in found


def test_a_daemon_that_offers_passwords_is_told_from_one_that_says_nothing() -> None:
    offers = "root@10.77.0.11: Permission denied (publickey,password)."

    assert offers_too_much(offers, False)
    assert not offers_too_much(offers, True)
    assert not offers_too_much("Host key verification failed.", False)
    assert not offers_too_much("root@10.77.0.11: Permission denied (publickey,gssapi-with-mic).", False)
