from __future__ import annotations

import pytest

from provision.roles.settled import SettledRoles


def looked() -> SettledRoles:
    settled = SettledRoles()
    settled.keep("te1", ["host_names", "ssh_trust"])
    settled.keep("te2", ["ssh_trust"])
    return settled


def test_a_role_is_settled_on_nodes_that_were_all_looked_at_and_have_all_of_it() -> None:
    settled = looked()

    assert settled.are_settled(["te1", "te2"], "ssh_trust")
    assert settled.are_settled(["te1"], "host_names")
    assert not settled.are_settled(["te1", "te2"], "host_names")
    assert not settled.are_settled(["te1", "te3"], "ssh_trust")
    assert not settled.are_settled([], "ssh_trust")
    assert not SettledRoles().are_settled(["te1"], "host_names")


@pytest.mark.parametrize("action", ["observe", "ansible.builtin.assert", "ansible.builtin.include_tasks"])
def test_reading_leaves_what_was_said(action: str) -> None:
    settled = looked()

    settled.after(action, changed=False, failed=False)

    assert settled.are_settled(["te1"], "host_names")


@pytest.mark.parametrize(
    ("action", "changed", "failed"),
    [
        ("write_files", True, False),
        ("ansible.builtin.debug", True, False),
        ("observe", False, True),
        ("write_files", False, False),
        ("ansible.builtin.command", False, False),
        ("ansible.builtin.raw", False, False),
        ("ansible.builtin.set_fact", False, False),
        ("community.general.filesystem", False, False),
    ],
)
def test_what_can_have_changed_anything_ends_what_was_said_of_every_node(
    action: str, changed: bool, failed: bool
) -> None:
    settled = looked()

    settled.after(action, changed=changed, failed=failed)

    assert not settled.are_settled(["te1"], "host_names")
    assert not settled.are_settled(["te2"], "ssh_trust")
