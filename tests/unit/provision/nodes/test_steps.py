"""All work on the node that changes, one call to the others, and the test that the change asks for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from provision.inventory.members import Action, Members, members_in
from provision.nodes.steps import new_pairs_step, restore_steps, smoke_step, steps

THREE = Members(names=("te1", "te2", "te3"), drained=frozenset(), leader="")
LED = Members(names=("te1", "te2", "te3"), drained=frozenset(), leader="te1")
FULL = ("playbooks/site.yml", "--limit", "te2", "--skip-tags", "smoke_test")
MESHED = replace(LED, mesh=True)
MESH = ("playbooks/site.yml", "--tags", "wireguard_mesh")
TELL = ("playbooks/members.yml",)
CLOCK = ("playbooks/site.yml", "--tags", "time_sync")
ADMIT = ("playbooks/site.yml", "--limit", "te1", "--tags", "time_sync")


def planned(action: Action, name: str, before: Members = THREE) -> list[tuple[str, ...]]:
    after = before.after(action, name)
    return [step.words for step in steps(action, name, before=before, after=after)]


def test_a_new_node_gets_everything_before_the_others_hear_of_it() -> None:
    assert planned(Action.add, "te2") == [FULL, TELL]


def test_a_replaced_node_is_the_only_one_whose_host_keys_may_change() -> None:
    accepted = ("--extra-vars", '{"ssh_trust_replaced_nodes": ["te2"]}')

    assert planned(Action.replace, "te2") == [(*FULL, *accepted), TELL]


@pytest.mark.parametrize("action", [Action.remove, Action.drain, Action.undrain])
def test_the_others_are_told_with_one_call(action: Action) -> None:
    assert planned(action, "te2") == [TELL]


def test_the_clocks_follow_where_their_leader_has_gone_or_moved() -> None:
    assert planned(Action.remove, "te1", LED) == [TELL, CLOCK]
    assert planned(Action.replace, "te1", LED)[1:] == [TELL, CLOCK]


def test_the_clocks_follow_when_a_removal_that_failed_is_given_again_since_the_leader_may_have_gone() -> None:
    assert planned(Action.remove, "te9", LED) == [TELL, CLOCK]
    assert planned(Action.remove, "te9", THREE) == [TELL]


def test_the_leading_clock_hears_of_a_node_before_that_asks_it_and_after_that_has_gone() -> None:
    assert planned(Action.add, "te2", LED) == [ADMIT, FULL, TELL]
    assert planned(Action.replace, "te2", LED)[::2] == [ADMIT, TELL]
    assert planned(Action.remove, "te2", LED) == [TELL, ADMIT]
    assert planned(Action.drain, "te2", LED) == [TELL]


def test_all_nodes_take_a_new_one_into_the_mesh_before_anything_goes_through_it() -> None:
    accepted = ("--extra-vars", '{"ssh_trust_replaced_nodes": ["te2"]}')

    assert planned(Action.add, "te2", MESHED) == [MESH, ADMIT, FULL, TELL]
    assert planned(Action.replace, "te2", MESHED)[0] == (*MESH, *accepted)
    assert planned(Action.remove, "te2", MESHED) == [TELL, ADMIT]
    assert members_in({"te1": {}}).mesh is False


def restored(*names: str, members: Members = THREE) -> list[tuple[str, ...]]:
    return [step.words for step in restore_steps(names, members)]


def test_machines_from_an_image_cost_the_others_one_call() -> None:
    limit = ("--limit", "te2,te3", "--skip-tags", "smoke_test")
    accepted = ("--extra-vars", '{"ssh_trust_replaced_nodes": ["te2", "te3"]}')

    assert restored("te3", "te2") == [("playbooks/restore.yml", *limit, *accepted), TELL]
    assert restored("te1", members=LED)[1:] == [TELL, CLOCK]
    assert restored("te2", members=LED)[::2] == [ADMIT, TELL]


def test_where_all_are_from_an_image_one_playbook_does_it() -> None:
    accepted = ("--extra-vars", '{"ssh_trust_replaced_nodes": ["te1", "te2", "te3"]}')

    assert restored("te1", "te2", "te3") == [("playbooks/restore.yml", *accepted)]


def test_the_pairs_of_all_machines_from_an_image_are_tested_once() -> None:
    found = new_pairs_step(("te3", "te2"), THREE, ())

    assert found
    assert found.words[1:3] == ("--limit", "te2")
    assert found.words[-1] == '{"smoke_test_new": ["te2", "te3"]}'
    assert new_pairs_step(("te2",), THREE.after(Action.drain, "te2"), ()) is None


def smoke(action: Action, name: str, after: Members, pending: tuple[str, ...] = ()) -> tuple[str, ...]:
    found = smoke_step(action, name, after, pending)
    return found.words[1:] if found else ()


def test_the_smoke_test_runs_on_the_new_node_and_measures_its_pairs() -> None:
    values = ("--extra-vars", '{"smoke_test_new": ["te2"]}')

    assert smoke(Action.add, "te2", THREE) == ("--limit", "te2", "--tags", "smoke_test", *values)


def test_after_a_removal_all_others_are_tested() -> None:
    after = THREE.after(Action.remove, "te1")

    assert smoke(Action.remove, "te1", after) == ("--limit", "te2", "--tags", "smoke_test")


def test_a_node_that_does_not_answer_is_left_out_of_the_test_unless_it_is_drained() -> None:
    drained = THREE.after(Action.drain, "te3")

    assert '"smoke_test_left_out": ["te3"]' in smoke(Action.replace, "te2", THREE, ("te3",))[-1]
    assert "left_out" not in smoke(Action.replace, "te2", drained, ("te3",))[-1]


@pytest.mark.parametrize("action", [Action.drain, Action.undrain])
def test_draining_asks_for_no_test(action: Action) -> None:
    assert smoke_step(action, "te2", THREE, ()) is None


def test_a_drained_node_that_is_replaced_is_not_tested() -> None:
    assert smoke_step(Action.replace, "te2", THREE.after(Action.drain, "te2"), ()) is None


def listed(**first: Any) -> dict[str, Any]:
    return {"te1": first, "te2": {"cluster_drained": True}}


def test_members_come_from_the_inventory_with_their_order() -> None:
    assert members_in(listed()) == Members(names=("te1", "te2"), drained=frozenset({"te2"}), leader="")
    assert members_in(listed(time_sync_pools=[])).leader == "te1"
    assert members_in(listed(time_sync_pools=[], time_sync_servers=["10.0.0.1"])).leader == ""


def test_members_after_an_action() -> None:
    assert LED.after(Action.add, "te4").names == ("te1", "te2", "te3", "te4")
    assert THREE.after(Action.add, "te3") == THREE
    assert LED.after(Action.remove, "te1").leader == "te2"
    assert THREE.after(Action.drain, "te1").working() == ["te2", "te3"]
    assert THREE.after(Action.drain, "te1").after(Action.undrain, "te1") == THREE
