"""Commands go through sudo where the inventory says so; a refusal of sudo is named."""

from __future__ import annotations

import pytest

from provision.errors import BadInput, CommandFailed
from provision.model import Sudo
from provision.privilege import as_user, refuse, sudo_of


@pytest.mark.parametrize(
    ("become", "sudo"),
    [
        ({}, Sudo(flags=())),
        ({"become_flags": "-H -S -n"}, Sudo()),
        ({"become_flags": "-HSn", "become_pass": "x"}, Sudo(password="x")),
        (
            {"become_flags": "--non-interactive -i", "become_exe": "/opt/sudo"},
            Sudo(program="/opt/sudo", flags=("-i",)),
        ),
        ({"become_flags": "--preserve-env=A", "become_user": "root"}, Sudo(flags=("--preserve-env=A",))),
    ],
)
def test_sudo_is_what_ansible_s_plugin_says(become: dict[str, object], sudo: Sudo) -> None:
    assert sudo_of({"method": "sudo", **become}) == sudo


@pytest.mark.parametrize(
    ("become", "found"),
    [
        ({"method": "su"}, "ansible_become_method is su"),
        ({"become_user": "admin"}, "ansible_become_user is admin"),
        ({"become_flags": "'"}, "No closing quotation"),
    ],
)
def test_what_only_playbooks_can_use_is_refused_by_name(become: dict[str, object], found: str) -> None:
    with pytest.raises(BadInput, match=found):
        sudo_of({"method": "sudo", **become})


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
