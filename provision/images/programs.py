"""The programs that look at an image's tree or at a node's disks, each as one text with its modules."""

from __future__ import annotations

import json
from pathlib import Path

import yaml


def with_module(program: str, name: str, module: str) -> str:
    """One text of Python: the program, which finds `module` when it imports `name`."""
    return "\n".join(
        (
            "import sys, types",
            f"sys.modules[{name!r}] = types.ModuleType({name!r})",
            f"exec({json.dumps(module)}, sys.modules[{name!r}].__dict__)",
            f"exec({json.dumps(program)})",
            "",
        )
    )


# What runs on nodes and on trees of images belongs to the role.
_PLAYBOOKS = Path(__file__).parents[2] / "playbooks"
PROGRAMS = _PLAYBOOKS / "roles" / "image_cleanup" / "files"
# A module that others import comes after them: it is there then when they are run.
_MODULES = {
    "image_tree.py": [PROGRAMS / "image_keep.py", PROGRAMS / "image_secrets.py", PROGRAMS / "image_walk.py"],
    "live_view.py": [PROGRAMS / "image_keep.py", _PLAYBOOKS / "module_utils" / "node_place.py"],
}


def image_program(name: str) -> str:
    """image_tree.py or live_view.py with its modules, for a node's own Python."""
    program = (PROGRAMS / name).read_text()
    for module in _MODULES[name]:
        program = with_module(program, module.stem, module.read_text())
    return program


def secret_kinds() -> str:
    """What image_tree.py looks for, as its option takes it."""
    return json.dumps(yaml.safe_load((PROGRAMS / "secrets.yml").read_text()))
