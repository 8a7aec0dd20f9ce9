"""group = role = tag, and a role's argument specification agrees with its defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chapters import plays_of

ROOT = Path(__file__).parents[2]
ROLES = sorted(path for path in (ROOT / "playbooks" / "roles").iterdir() if path.is_dir())
OF_IMAGES = {"image_cleanup"}  # what converging a cluster must never do to it
# What an image brings along; restore.yml has a play for every other role of site.yml.
IN_IMAGES = {"base_packages", "time_sync", "host_tuning", "nvidia_driver", "nvidia_gpu", "miniconda"}
# What validate.yml holds values against; `elements` may be str alone, which Ansible makes of anything.
CHECKED = {"type", "elements", "default", "description"}
VOCABULARY = "cluster"  # defaults only: the words that the other roles share
TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "path": (str,),
    "bool": (bool,),
    "int": (int,),
    "float": (float, int),
    "list": (list,),
    "dict": (dict,),
    "raw": (object,),
}


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text()) if path.exists() else None


def options_of(role: Path) -> dict[str, dict[str, Any]]:
    spec = load(role / "meta" / "argument_specs.yml")
    assert spec is not None, f"{role.name} has no meta/argument_specs.yml"
    # `main` Ansible would check anew on every node in every play; validate.yml has checked it by then.
    options: dict[str, dict[str, Any]] = spec["argument_specs"]["variables"].get("options", {})
    return options


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_the_argument_specification_agrees_with_the_defaults(role: Path) -> None:
    defaults = load(role / "defaults" / "main.yml") or {}
    options = options_of(role)

    stated = {name: option["default"] for name, option in options.items() if "default" in option}
    required = {name for name, option in options.items() if option.get("required")}

    assert stated == defaults
    assert required.isdisjoint(defaults)
    assert set(options) == set(defaults) | required


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_every_option_is_described_typed_and_carries_its_role_as_prefix(role: Path) -> None:
    for name, option in options_of(role).items():
        assert option.get("description"), f"{name} has no description"
        assert option["type"] in TYPES, f"{name} has type {option['type']}"
        unchecked = set(option) - CHECKED | {option.get("elements", "str")} - {"str"}
        assert not unchecked, f"validate.yml does not check {unchecked} of {name}"
        if role.name != VOCABULARY:
            assert name.startswith(f"{role.name}_"), f"{name} does not begin with {role.name}_"


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_a_default_that_is_not_a_template_has_the_type_that_its_option_states(role: Path) -> None:
    options = options_of(role)
    for name, value in (load(role / "defaults" / "main.yml") or {}).items():
        if not (isinstance(value, str) and "{{" in value):
            assert isinstance(value, TYPES[options[name]["type"]]), name


@pytest.mark.parametrize("role", [r for r in ROLES if r.name != VOCABULARY], ids=lambda role: role.name)
def test_a_role_is_a_group_and_a_tagged_play(role: Path) -> None:
    groups = load(ROOT / "inventory" / "groups.yml")
    home = "image.yml" if role.name in OF_IMAGES else "site.yml"
    plays = [play for play in plays_of(ROOT / "playbooks" / home) if play.get("hosts") == role.name]

    assert role.name in groups
    assert len(plays) == 1
    assert role.name in plays[0].get("tags", [])


def looks() -> list[str]:
    """The roles that the look of site.yml asks for."""
    (look,) = (
        task["look"]
        for play in plays_of(ROOT / "playbooks" / "site.yml")
        for task in play.get("tasks", [])
        if "look" in task
    )
    roles: list[str] = look["roles"]
    return roles


def test_the_look_of_site_asks_for_every_role_that_follows_it_in_their_order() -> None:
    _, _, *plays = [play["hosts"] for play in plays_of(ROOT / "playbooks" / "site.yml")]  # hold, validate

    assert plays[0] == "node_access"  # before it nothing can be observed
    assert plays[1] == "environment_kind"  # by which roles tell whether they are settled
    assert plays[2] == "cluster"
    assert looks() == plays[3:]


@pytest.mark.parametrize("role", looks())
def test_a_role_says_what_it_observes_and_when_it_is_settled_and_goes_by_that_itself(role: str) -> None:
    """What the look asks and judges is what the role asks and judges, or the two would drift apart."""
    folder = ROOT / "playbooks" / "roles" / role
    tasks = "".join(path.read_text() for path in sorted((folder / "tasks").glob("*.yml")))
    first = load(folder / "tasks" / "main.yml")[0]

    assert {f"{role}_observes", f"{role}_settled"} <= set(load(folder / "vars" / "main.yml"))
    assert f"are_settled('{role}')" in first["when"]
    assert role == "smoke_test" or first["ansible.builtin.meta"] == "end_role"
    assert f'observe: "{{{{ {role}_observes }}}}"' in tasks
    assert f"register: {role}_observed" in tasks


# One node's tasks there decide by what other nodes said, so all run where one has to.
OF_ALL_NODES = {"wireguard_mesh", "ssh_trust", "conda_env"}


@pytest.mark.parametrize("role", looks())
def test_what_changes_a_node_is_behind_one_include(role: str) -> None:
    """A task that is skipped is a process forked for each node: some hundredths of a second each."""
    tasks = load(ROOT / "playbooks" / "roles" / role / "tasks" / "main.yml")
    asks_all = "ansible_play_hosts | are_settled" in tasks[0]["when"]

    assert asks_all == (role in OF_ALL_NODES)
    if role in OF_ALL_NODES:
        assert f"'{role}_is_settled') is all" in tasks[-1]["when"]
    elif role not in {"smoke_test", "nvidia_gpu"}:
        assert tasks[-1]["when"] == f"not {role}_settled"
    if role not in {"smoke_test", "nvidia_gpu"}:
        assert tasks[-1]["ansible.builtin.include_tasks"] == "change.yml"
        assert len(tasks) <= 6


def test_no_task_hides_that_ansible_itself_failed_or_drops_the_flags_of_sudo() -> None:
    """members.yml says the message in its next task, since the one that may hold a secret has no log."""
    texts = {path: path.read_text() for path in sorted((ROOT / "playbooks").rglob("*.yml"))}

    hiding = [path.name for path, text in texts.items() if "failed_when: false" in text]
    dropping = [path.name for path, text in texts.items() if "become_flags:" in text]

    assert hiding == ["members.yml"]
    assert dropping == []
    assert not any("ignore_errors" in text for text in texts.values())


def test_a_machine_made_from_an_image_gets_every_role_that_the_image_does_not_bring() -> None:
    def roles(playbook: str) -> set[str]:
        return {role for play in plays_of(ROOT / "playbooks" / playbook) for role in play.get("roles", [])}

    assert roles("restore.yml") == roles("site.yml") - IN_IMAGES
