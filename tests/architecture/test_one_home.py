"""Each power of the program has one home, so that a reader knows where to look for it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.test_layers import ROOT, imports, modules, nodes

CLIS = (
    "provision.cli",
    "provision.commands",
    "runtime.cli",
    "runtime.commands",
    "runtime.api",  # the door of `import runtime`: a launcher tells a script its rank through the environment
    "runtime.launch.cli",
    "runtime.launch.node",
    "runtime.launch.rank",
    "runtime.__main__",
)


def uses(path: Path, dotted: str) -> bool:
    wanted = dotted.split(".")
    for node in nodes(path):
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.insert(0, node.attr)
            node = node.value
        if isinstance(node, ast.Name):
            parts.insert(0, node.id)
        if parts[-len(wanted) :] == wanted and parts:
            return True
    return False


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True, cwd=ROOT)


def at_home(module: str, homes: tuple[str, ...]) -> bool:
    return any(f"{module}.".startswith(f"{home}.") for home in homes)


DOORS = ("provision", "provision.cli", "runtime", "runtime.cli", "runtime.launch.cli")
IMPORT_HOMES = {
    # audit_program runs alone on a node, where nothing of ours can be imported.
    "subprocess": ("provision.edges.process", "provision.fleet.audit_program", "runtime.launch.supervisor"),
    "fabric": ("provision.edges.ssh",),
    "paramiko": ("provision.edges.ssh",),
    "rich.console": ("provision.edges.terminal", "runtime.terminal"),
}
NAME_HOMES = {
    "init_process_group": ("runtime.comm.group",),
    "os.environ": CLIS,
    "os.getenv": CLIS,
    "sys.exit": CLIS,
    "print": CLIS,
}


@pytest.mark.parametrize(("module", "path"), [pytest.param(n, p, id=n) for n, p in modules()])
def test_a_power_is_used_only_in_its_home(module: str, path: Path) -> None:
    imported = {name.split(".")[0] for name in imports(path)}

    strays = [name for name, homes in IMPORT_HOMES.items() if name in imported and not at_home(module, homes)]
    strays += [name for name, homes in NAME_HOMES.items() if uses(path, name) and not at_home(module, homes)]

    assert not strays, (
        f"{module} uses {strays}; homes: {[(IMPORT_HOMES | NAME_HOMES)[name] for name in strays]}"
    )


def test_every_module_imports_alone() -> None:
    """Each in a process of its own; its parent has imported torch, for speed, and nothing of ours."""
    program = (
        "import os, sys, torch\n"
        "for number, name in enumerate(sys.argv[1:]):\n"
        "    if number >= os.cpu_count():\n"
        "        os.wait()\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        try:\n"
        "            __import__(name)\n"
        "        except BaseException as error:\n"
        "            print(f'{name}: {error!r}', flush=True)\n"
        "            os._exit(1)\n"
        "        os._exit(0)\n"
        "while True:\n"
        "    try:\n"
        "        os.wait()\n"
        "    except ChildProcessError:\n"
        "        break\n"
    )
    names = [name for name, _ in modules() if not name.endswith("__main__")]

    finished = python("-W", "ignore", "-c", program, *names)

    assert finished.stdout == ""


@pytest.mark.parametrize(
    "module", ["provision", "provision.cli", "runtime", "runtime.cli", "runtime.launch.cli"]
)
def test_a_door_opens_without_torch_and_leaves_the_environment_alone(module: str) -> None:
    program = (
        "import os, sys\n"
        "before = dict(os.environ)\n"
        f"import {module}\n"
        "assert dict(os.environ) == before, 'the environment changed'\n"
        "print('torch' in sys.modules)\n"
    )

    finished = python("-c", program)

    assert finished.stdout.strip() == "False"
