"""Arrows point down only, and the two packages never meet."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# A module may import from its own layer's folder and from the layers named here. The longest prefix decides.
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "provision.errors": (),
    "provision.model": ("provision.errors",),
    "provision.printable": (),
    "provision.privilege": ("provision.errors", "provision.model"),
    "provision.edges": ("provision.errors", "provision.model", "provision.printable", "provision.privilege"),
    "provision.roles": ("provision.errors", "provision.printable"),
    "provision.environments": (
        *("provision.errors", "provision.model", "provision.printable", "provision.edges"),
        *("provision.roles", "provision.images.programs"),
    ),
    "provision.diagnose": ("provision.errors", "provision.model", "provision.printable", "provision.edges"),
    "provision.smoke": ("provision.errors", "provision.model", "provision.edges", "provision.diagnose"),
    "provision.inventory": (
        *("provision.errors", "provision.model", "provision.privilege", "provision.edges"),
        "provision.roles",
    ),
    "provision.join": ("provision.errors", "provision.model", "provision.edges"),
    "provision.audit": (
        *("provision.errors", "provision.model", "provision.printable", "provision.edges"),
        *("provision.roles", "provision.inventory"),
    ),
    "provision.nodes": (
        *("provision.errors", "provision.model", "provision.edges", "provision.roles"),
        *("provision.inventory", "provision.diagnose", "provision.audit", "provision.join"),
    ),
    "provision.images.programs": (),
    "provision.images": ("provision.errors", "provision.model", "provision.edges", "provision.join"),
    "provision.bundle": (
        *("provision.errors", "provision.model", "provision.edges", "provision.roles"),
        *("provision.environments", "provision.store"),
    ),
    "provision.lab": (
        *("provision.errors", "provision.edges", "provision.roles", "provision.environments"),
        *("provision.smoke", "provision.bundle"),
    ),
    # What nodes run alone, beside what the controller does with it.
    "provision.store.node": (),
    "provision.store": (
        *("provision.errors", "provision.model", "provision.printable", "provision.edges"),
        "provision.roles",
    ),
    "provision.commands": ("provision",),
    "provision.cli": ("provision",),
    "provision": (),
    "runtime.errors": (),
    "runtime.terminal": (),
    "runtime.untrusted": (),
    "runtime.topology": ("runtime.errors",),
    "runtime.entry": ("runtime.errors", "runtime.terminal"),
    "runtime.edges": ("runtime.errors", "runtime.untrusted"),
    "runtime.job": (
        *("runtime.errors", "runtime.topology", "runtime.untrusted", "runtime.edges"),
        "runtime.as_deepspeed.finder",
    ),
    "runtime.probes": ("runtime.errors", "runtime.untrusted", "runtime.edges", "runtime.job"),
    "runtime.flight": ("runtime.errors", "runtime.untrusted"),
    "runtime.remote": (
        *("runtime.errors", "runtime.untrusted", "runtime.edges", "runtime.flight"),
        *("runtime.job", "runtime.probes"),
    ),
    "runtime.gate": ("runtime.errors", "runtime.untrusted", "runtime.edges", "runtime.job", "runtime.probes"),
    "runtime.launch": (
        *("runtime.errors", "runtime.terminal", "runtime.untrusted", "runtime.entry", "runtime.edges"),
        *("runtime.flight", "runtime.job", "runtime.probes", "runtime.remote", "runtime.gate"),
        "runtime.as_deepspeed.finder",
    ),
    "runtime.node": (
        *("runtime.errors", "runtime.edges", "runtime.job", "runtime.probes", "runtime.remote"),
        *("runtime.gate", "runtime.launch", "runtime.smoke.host"),
    ),
    "runtime.comm": ("runtime.errors", "runtime.topology", "runtime.untrusted", "runtime.edges"),
    "runtime.train": ("runtime.errors", "runtime.topology", "runtime.untrusted", "runtime.comm"),
    "runtime.api": ("runtime.errors", "runtime.topology", "runtime.comm", "runtime.train"),
    # Its tables name what others are made of, and import nothing of it.
    "runtime.as_deepspeed.names": (),
    "runtime.as_deepspeed.reading": ("runtime.as_deepspeed.names",),
    "runtime.as_deepspeed.finder": ("runtime.errors", "runtime.as_deepspeed.names"),
    "runtime.as_deepspeed": ("runtime.errors", "runtime.topology", "runtime.train", "runtime.api"),
    "runtime.smoke": (
        *("runtime.errors", "runtime.topology", "runtime.untrusted", "runtime.edges", "runtime.job"),
        *("runtime.probes", "runtime.remote", "runtime.gate", "runtime.launch", "runtime.comm"),
        "runtime.train",
    ),
    # Low, since a node runs the probes of these checks; so are the two modules that they need beside them.
    "runtime.smoke.host": (
        *("runtime.untrusted", "runtime.edges", "runtime.probes", "runtime.smoke.network.matrix"),
    ),
    "runtime.smoke.network.matrix": ("runtime.smoke.network.pair_schedule",),
    "runtime.smoke.network.pair_schedule": (),
    "runtime.bench": ("runtime.errors", "runtime.topology", "runtime.comm", "runtime.train", "runtime.api"),
    "runtime.commands": ("runtime",),
    "runtime.cli": ("runtime",),
    "runtime.__main__": ("runtime",),
    "runtime": ("runtime.api",),
}


def modules() -> Iterator[tuple[str, Path]]:
    for package in ("provision", "runtime"):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


@cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(ast.parse(path.read_text())))


def imports(path: Path) -> Iterator[str]:
    for node in nodes(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer_of(module: str) -> str:
    return max((layer for layer in MAY_IMPORT if f"{module}.".startswith(f"{layer}.")), key=len)


def is_allowed(importer: str, imported: str) -> bool:
    """Whether the table has this arrow. What lies directly in a package has none but its own line's."""
    layer = layer_of(importer)
    below = MAY_IMPORT[layer] if layer in PACKAGES else (layer, *MAY_IMPORT[layer])
    return any(f"{imported}.".startswith(f"{allowed}.") for allowed in below)


PACKAGES = ("provision", "runtime")
OWN_MODULES = {name for name, _ in modules()}


@pytest.mark.parametrize(("module", "path"), [pytest.param(n, p, id=n) for n, p in modules()])
def test_a_module_imports_only_from_the_layers_below_it(module: str, path: Path) -> None:
    own = {name for name in imports(path) if name in OWN_MODULES and name not in PACKAGES}

    wrong = sorted(name for name in own if name != module and not is_allowed(module, name))

    assert not wrong, f"{module} ({layer_of(module)}) may not import {wrong}"


def arrows(paths: Mapping[str, Path]) -> dict[str, set[str]]:
    """Which of these modules each one imports, for its types alone as well; a package counts as itself."""
    found = {}
    for name, path in paths.items():
        imported = set(imports(path)) & paths.keys() - {name}
        # `from a.b import c` names a.b as well, which is imported for itself only where c is no module of it.
        packages = {parent for parent in imported if any(one.startswith(f"{parent}.") for one in imported)}
        found[name] = imported - packages
    return found


def circle(paths: Mapping[str, Path]) -> list[str]:
    """A circle of imports, or none."""
    try:
        TopologicalSorter(arrows(paths)).prepare()
    except CycleError as error:
        names: list[str] = error.args[1]
        return names
    return []


def test_no_module_imports_itself_by_others() -> None:
    assert circle(dict(modules())) == []


def test_a_circle_is_found_though_it_is_one_of_types(tmp_path: Path) -> None:
    texts = {
        "runtime.a": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from runtime.b import B\n",
        "runtime.b": "import runtime.c\n",
        "runtime.c": "from runtime import a\n",
    }
    paths = {name: tmp_path / f"{name}.py" for name in texts}
    for name, text in texts.items():
        paths[name].write_text(text)

    assert set(circle(paths)) == texts.keys()


def test_each_module_of_a_package_itself_is_named_in_the_table() -> None:
    """Else it would have the package's own line, and could import whatever that may."""
    direct = {name for name in OWN_MODULES if name.count(".") == 1}

    assert direct - MAY_IMPORT.keys() == set()


# Modules of the rooms below that act: by a door, the disk, a socket or Ansible. Every other one is pure.
ROOMS = "audit bundle diagnose environments images inventory join nodes roles smoke store"
ACT = {
    "audit": "look",
    "bundle": "apt_sources debian folder gather server trust wheels",
    "diagnose": "questions",
    "environments": "conda_lock index locks oci.build on_nodes runtime_wheel sources",
    "images": "baking files programs",
    "inventory": "as_ansible site site_files trust",
    "join": "server tokens user_data",
    "nodes": "arrivals life",
    "smoke": "remote",
    "store": (
        "delivery hub on_nodes program source "
        "node.arrival node.exchange node.hold node.lock node.main node.packing node.store node.tree"
    ),
}
ACTING = {f"provision.{room}.{name}" for room, names in ACT.items() for name in names.split()}


def test_what_decides_in_a_room_imports_nothing_that_acts() -> None:
    rooms = tuple(f"provision.{room}." for room in ROOMS.split())
    pure = {name: path for name, path in modules() if name.startswith(rooms) and name not in ACTING}
    acts = {name for name in OWN_MODULES if name.startswith("provision.edges.")} | ACTING

    assert OWN_MODULES >= ACTING
    assert {name: wrong for name, path in pure.items() if (wrong := set(imports(path)) & acts)} == {}


def test_the_rule_refuses_an_arrow_that_points_up() -> None:
    assert not is_allowed("provision.roles.data_disk", "provision.edges.process")
    assert not is_allowed("provision.inventory.problems", "provision.nodes.life")
    assert not is_allowed("provision.edges.ssh", "provision.lab.lab")
    assert not is_allowed("provision.lab.lab", "provision.commands.lab")
    assert not is_allowed("runtime.job.spec", "runtime.smoke.report")
    assert not is_allowed("runtime.train.engine", "provision.errors")
    assert not is_allowed("provision.lab.lab", "runtime.errors")
    assert not is_allowed("runtime.unheard_of", "runtime.smoke.report")
    assert not is_allowed("runtime.gate.certificate", "runtime.launch.preflight")
    assert not is_allowed("runtime.node", "runtime.smoke.report")
    assert not is_allowed("runtime.smoke.host.clock", "runtime.smoke.network.pair_checks")
    assert not is_allowed("runtime.smoke.host.clock", "runtime.comm.group")
    assert is_allowed("runtime.commands.smoke", "runtime.smoke.report")
    assert is_allowed("provision.commands.lab", "provision.lab.lab")
