"""Each power of the program has one home, so that a reader knows where to look for it."""

from __future__ import annotations

import ast
import json
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
    "runtime.node",
    "runtime.launch.rank",
    "runtime.__main__",
    "runtime.as_deepspeed",  # the door of `import deepspeed`
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


def python(*arguments: str, said: str = "") -> subprocess.CompletedProcess[str]:
    words = [sys.executable, *arguments]
    return subprocess.run(words, input=said, capture_output=True, text=True, check=True, cwd=ROOT)


def at_home(module: str, homes: tuple[str, ...]) -> bool:
    return any(f"{module}.".startswith(f"{home}.") for home in homes)


DOORS = ("provision", "provision.cli", "runtime", "runtime.cli", "runtime.launch.cli")
IMPORT_HOMES = {
    # audit_program and the store's hold run alone on a node, where nothing of ours can be imported.
    "subprocess": (
        *("provision.edges.process", "provision.audit.audit_program", "provision.store.node.hold"),
        "runtime.edges.process",
    ),
    "fabric": ("provision.edges.ssh",),
    "paramiko": ("provision.edges.ssh", "provision.edges.ssh_login"),
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


# Imports the programs of others that it is given first, then each of our modules in a process of its own.
IMPORTS_ALONE = """
import contextlib, importlib, json, os, sys
theirs, ours = json.load(sys.stdin)
for name in theirs:
    with contextlib.suppress(ImportError):
        importlib.import_module(name)
assert not {name.partition(".")[0] for name in sys.modules} & {"provision", "runtime"}
pids = {}
def wait():
    pid, status = os.wait()
    if status:
        print(f"{pids[pid]}: ended with {os.waitstatus_to_exitcode(status)}", flush=True)
for number, name in enumerate(ours):
    if number >= os.cpu_count():
        wait()
    pids[child := os.fork()] = name
    if child == 0:
        try:
            importlib.import_module(name)
        except BaseException as error:
            print(f"{name}: {error!r}", flush=True)
            os._exit(1)
        os._exit(0)
while True:
    try:
        wait()
    except ChildProcessError:
        break
"""


@pytest.mark.parametrize("package", ["provision", "runtime"])
def test_every_module_imports_alone(package: str) -> None:
    """Each in a process of its own; its parent has imported what is not ours, most of the work."""
    paths = {name: path for name, path in modules() if name.partition(".")[0] == package}
    ours = [name for name in paths if not name.endswith("__main__")]
    imported = {name for path in paths.values() for name in imports(path)}
    theirs = sorted(name for name in imported if name.partition(".")[0] not in ("provision", "runtime"))

    finished = python("-W", "ignore", "-c", IMPORTS_ALONE, said=json.dumps([theirs, ours]))

    assert finished.stdout == ""


def test_a_module_that_ends_its_process_does_not_pass_for_one_that_imports(tmp_path: Path) -> None:
    (tmp_path / "crashes.py").write_text("import os\nos.abort()\n")
    words = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{IMPORTS_ALONE}"]

    ended = subprocess.run(
        words, input=json.dumps([[], ["crashes", "json"]]), capture_output=True, text=True, check=True
    )

    assert ended.stdout == "crashes: ended with -6\n"


@pytest.mark.parametrize("module", [*DOORS, "runtime.node", "runtime.smoke.checks"])
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
