"""Commands go through sudo where the inventory says so; a refusal of sudo is named."""

from __future__ import annotations

import pytest

from provision.errors import BadInput, CommandFailed
from provision.model import Sudo
from provision.privilege import as_user, refuse, sudo_of


@pytest.mark.parametrize(
    ("variables", "sudo"),
    [
        ({}, None),
        ({"ansible_become": False, "ansible_become_password": "x"}, None),
        ({"ansible_become": "yes"}, Sudo()),
        ({"ansible_become": True, "ansible_become_password": 42}, Sudo(password="42")),
        ({"ansible_become": True, "ansible_become_pass": "x"}, Sudo(password="x")),
        ({"ansible_become": True, "ansible_become_password": "{{ vault }}"}, Sudo()),
        ({"ansible_become": True, "ansible_become_password": {"__ansible_vault": "$"}}, Sudo()),
    ],
)
def test_sudo_is_what_the_variables_say(variables: dict[str, object], sudo: Sudo | None) -> None:
    assert sudo_of("te1", variables) == sudo


def test_another_program_than_sudo_is_refused_by_name() -> None:
    with pytest.raises(BadInput, match="ansible_become_method is su"):
        sudo_of("te1", {"ansible_become": True, "ansible_become_method": "su"})


def test_a_password_is_asked_for_on_standard_input_and_never_shown() -> None:
    asking, silent = as_user(["id"], Sudo(password="x"), "train"), as_user(["id"], Sudo(), "root")

    assert asking[:8] == ["sudo", "-H", "-S", "-p", "", "-u", "train", "--"]
    assert silent[:6] == ["sudo", "-H", "-n", "-u", "root", "--"]
    assert asking[-1] == "id"
    assert "x" not in repr(Sudo(password="x"))


def test_what_sudo_refuses_is_told_from_what_a_program_says() -> None:
    with pytest.raises(CommandFailed, match="a password is required"):
        refuse("te1", Sudo(), 1, "sudo: a password is required\n")
    with pytest.raises(CommandFailed, match="is not the right one"):
        refuse("te1", Sudo(password="y"), 1, "Sorry, try again.\nsudo: 1 incorrect password attempt\n")
    refuse("te1", Sudo(), 1, "cat: /etc/x: No such file or directory\n")
    for status in (0, 1):  # a warning, also where the program fails
        refuse("te1", Sudo(), status, "sudo: unable to resolve host te1: Name or service not known\n")
