"""group = role = tag, and a role's argument specification agrees with its defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
ROLES = sorted(path for path in (ROOT / "playbooks" / "roles").iterdir() if path.is_dir())
OF_IMAGES = {"image_cleanup"}  # what converging a cluster must never do to it
# What an image brings along; restore.yml has a play for every other role of site.yml.
IN_IMAGES = {"base_packages", "time_sync", "host_tuning", "nvidia_gpu", "miniconda"}
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
    (entry,) = spec["argument_specs"].values()
    options: dict[str, dict[str, Any]] = entry.get("options", {})
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
    listed = load(ROOT / "playbooks" / home)
    plays = [play for play in listed if play.get("hosts") == role.name]

    assert role.name in groups
    assert len(plays) == 1
    assert role.name in plays[0].get("tags", [])


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
        return {role for play in load(ROOT / "playbooks" / playbook) for role in play.get("roles", [])}

    assert roles("restore.yml") == roles("site.yml") - IN_IMAGES
