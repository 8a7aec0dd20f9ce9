"""The user of jobs is made where nobody has its name or number, and never taken from somebody."""

from __future__ import annotations

from typing import Any

import pytest

from provision.roles.job_user import is_made, made_by, problems, record_with

NONE = {"rc": 2, "stdout": "", "stderr": ""}
BLANK: dict[str, Any] = dict.fromkeys(("account", "number", "group", "group_number", "home"), NONE)
ACCOUNT = "trainer:x:2600:2600::/home/trainer:/bin/bash"


def said(text: str) -> dict[str, Any]:
    return {"rc": 0, "stdout": text, "stderr": ""}


def asked(*, uid: int = 2600, made: str = "", may_adopt: bool = False, **answers: str) -> list[str]:
    commands = {**BLANK, **{name: said(text) for name, text in answers.items()}}
    return problems(commands, name="trainer", uid=uid, made=made.split(), may_adopt=may_adopt)


def test_it_is_made_on_a_blank_node_and_only_there() -> None:
    assert asked() == []
    assert is_made(BLANK)
    assert not is_made({**BLANK, "account": said(ACCOUNT)})


@pytest.mark.parametrize(
    "there",
    [
        {},
        {"made": "trainer 2600"},
        {"made": "trainer 1001 home", "account": ACCOUNT.replace("2600", "1001")},
        {"made": "trainer 1001", "account": ACCOUNT.replace("2600", "1001")},
        {"may_adopt": True, "account": ACCOUNT.replace("2600", "1000")},
    ],
    ids=[
        "has the number",
        "made here",
        "made in a home that was there",
        "made here with the number of then",
        "named by the site",
    ],
)
def test_an_account_is_taken_as_it_is(there: dict[str, Any]) -> None:
    assert asked(**{"account": ACCOUNT, **there}) == []


def test_a_home_that_a_teardown_left_is_the_user_s_again() -> None:
    assert asked(home="2600") == []


@pytest.mark.parametrize(
    ("there", "words"),
    [
        ({"account": ACCOUNT.replace("2600", "1001")}, "a user trainer with the number 1001, which site.yml"),
        ({"account": "trainer:x:0:0::/root:/bin/sh", "may_adopt": True}, "trainer has the rights of root"),
        ({"account": "trainer:x:0:0::/root:/bin/sh", "made": "trainer 0"}, "trainer has the rights of root"),
        ({"number": "ann:x:2600:2600::/home/ann:/bin/sh"}, "the number 2600 is ann's"),
        ({"group": "trainer:x:1001:"}, "there is a group trainer with the number 1001"),
        ({"group_number": "staff:x:2600:"}, "the number 2600 is the group staff's"),
        ({"home": "1001"}, "a folder /home/trainer of the user with the number 1001"),
        ({"uid": 33}, "job_user_uid is 33"),
    ],
    ids=lambda case: case if isinstance(case, str) else "",
)
def test_what_is_somebody_else_s_is_refused_by_name(there: dict[str, Any], words: str) -> None:
    (problem,) = asked(**there)

    assert words in problem
    assert "choose another name" in problem or "take one from" in problem


@pytest.mark.parametrize(
    ("record", "there", "after"),
    [
        ("", [], "trainer 2600\n"),
        ("", ["home", "group"], "trainer 2600 home group\n"),
        # A run that was cut off had made the group.
        ("trainer 2600\n", ["group"], "trainer 2600\n"),
        ("trainer 2600 home\n", ["home", "group"], "trainer 2600 home\n"),
        ("runner 1500 group\n", [], "runner 1500 group\ntrainer 2600\n"),
        ("trainer 1001\nrunner 1500\n", ["home"], "runner 1500\ntrainer 2600 home\n"),
    ],
)
def test_the_record_says_of_all_that_were_made_what_was_there_before(
    record: str, there: list[str], after: str
) -> None:
    found = record_with(record, {**BLANK, **dict.fromkeys(there, said("2600"))}, name="trainer", uid=2600)

    assert found == after
    assert made_by(found, "trainer")[:2] == ["trainer", "2600"]
    assert made_by(found, "train") == []
