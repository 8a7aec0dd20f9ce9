"""Arrows point down only, and the two packages never meet."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# A module may import from its own layer's folder and from the layers named here. The longest prefix decides.
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "provision.errors": (),
    "provision.model": ("provision.errors",),
    "provision.entry": ("provision.errors", "provision.core"),
    "provision.core": ("provision.errors", "provision.model"),
    "provision.edges": ("provision.errors", "provision.model", "provision.core"),
    "provision.fleet": ("provision.errors", "provision.model", "provision.core", "provision.edges"),
    "provision.lab": ("provision.errors", "provision.model", "provision.core", "provision.edges"),
    "provision.commands": ("provision",),
    "provision.cli": ("provision",),
    "provision": (),
    "runtime.errors": (),
    "runtime.entry": ("runtime.errors", "runtime.terminal"),
    "runtime.terminal": (),
    "runtime.edges.private_files": ("runtime.errors",),
    "runtime.topology": ("runtime.errors",),
    "runtime.untrusted": (),
    "runtime.metrics": ("runtime.errors", "runtime.topology"),
    "runtime.comm": (
        "runtime.errors",
        "runtime.edges.private_files",
        "runtime.topology",
        "runtime.metrics",
        "runtime.untrusted",
    ),
    "runtime.train": (
        "runtime.errors",
        "runtime.topology",
        "runtime.metrics",
        "runtime.comm",
        "runtime.untrusted",
    ),
    "runtime.smoke": (
        "runtime.errors",
        "runtime.topology",
        "runtime.metrics",
        "runtime.comm",
        "runtime.untrusted",
        "runtime.train",
    ),
    "runtime.flight": ("runtime.errors", "runtime.untrusted"),
    "runtime.launch": (
        "runtime.untrusted",
        "runtime.entry",
        "runtime.errors",
        "runtime.topology",
        "runtime.metrics",
        "runtime.flight",
        "runtime.edges.private_files",
        "runtime.terminal",
    ),
    "runtime.bench": ("runtime.errors", "runtime.topology", "runtime.comm", "runtime.train", "runtime.api"),
    "runtime.ladder": (
        "runtime.errors",
        "runtime.topology",
        "runtime.metrics",
        "runtime.comm",
        "runtime.train",
        "runtime.smoke",
        "runtime.launch",
        "runtime.flight",
    ),
    "runtime.commands": ("runtime",),
    "runtime.cli": ("runtime",),
    "runtime": ("runtime.train", "runtime.comm", "runtime.topology", "runtime.errors"),
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
    layer = layer_of(importer)
    below = (layer, *MAY_IMPORT[layer])
    return any(
        f"{imported}.".startswith(f"{allowed}.") for allowed in below if allowed not in ("provision",)
    ) or ("provision" in MAY_IMPORT[layer] and imported.startswith("provision"))


OWN_MODULES = {name for name, _ in modules()}


@pytest.mark.parametrize(("module", "path"), [pytest.param(n, p, id=n) for n, p in modules()])
def test_a_module_imports_only_from_the_layers_below_it(module: str, path: Path) -> None:
    own = {name for name in imports(path) if name in OWN_MODULES and name not in ("provision", "runtime")}

    wrong = sorted(name for name in own if name != module and not is_allowed(module, name))

    assert not wrong, f"{module} ({layer_of(module)}) may not import {wrong}"


def test_the_rule_refuses_an_arrow_that_points_up() -> None:
    assert not is_allowed("provision.core.plan", "provision.edges.process")
    assert not is_allowed("provision.edges.ssh", "provision.lab.lab")
    assert not is_allowed("provision.lab.lab", "provision.commands.lab")
    assert not is_allowed("runtime.job.spec", "runtime.smoke.report")
    assert not is_allowed("runtime.train.engine", "provision.errors")
    assert not is_allowed("provision.lab.lab", "runtime.errors")
    assert is_allowed("runtime.commands.smoke", "runtime.smoke.report")
    assert is_allowed("provision.commands.lab", "provision.lab.lab")
