"""A script read, not run: which of DeepSpeed's names it uses, and which configurations it holds."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from runtime.as_deepspeed.names import ENGINE_NAMES, MODULES, Absent, children

DEEPSPEED = "deepspeed"
_CONFIG_KEYS = {"train_batch_size", "train_micro_batch_size_per_gpu", "zero_optimization"}


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Finding:
    """A name that is not here: where, which, why, and the way here."""

    line: int
    name: str
    why: str
    instead: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a script has: names that it uses, those that are not here, configurations by their lines."""

    uses: frozenset[str]
    findings: tuple[Finding, ...]
    configurations: tuple[tuple[int, dict[str, Any]], ...]


def read_script(text: str, *, engine_has: frozenset[str]) -> Reading:
    """Reads a script of Python's.

    Args:
        engine_has: names that the engine here answers.

    Raises:
        SyntaxError: it is no Python of this version.
    """
    reader = _Reader(engine_has)
    reader.visit(ast.parse(text))
    return Reading(
        uses=frozenset(reader.uses),
        findings=tuple(sorted(set(reader.findings))),
        configurations=tuple(reader.configurations),
    )


class _Reader(ast.NodeVisitor):
    def __init__(self, engine_has: frozenset[str]) -> None:
        self.engine_has = engine_has
        self.uses: set[str] = set()
        self.findings: list[Finding] = []
        self.configurations: list[tuple[int, dict[str, Any]]] = []
        self._paths: dict[str, str] = {}  # a variable, and the dotted name that it stands for
        self._engines: set[str] = set()

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            if alias.name.split(".")[0] == DEEPSPEED:
                self._look(alias.name, node.lineno)
                self._paths[alias.asname or DEEPSPEED] = alias.name if alias.asname else DEEPSPEED

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if node.level or not node.module or node.module.split(".")[0] != DEEPSPEED:
            return
        for alias in node.names:
            if alias.name == "*":
                self._look(node.module, node.lineno)
                continue
            path = f"{node.module}.{alias.name}"
            self._look(path, node.lineno)
            self._paths[alias.asname or alias.name] = path

    def visit_Assign(self, node: ast.Assign) -> None:
        if isinstance(node.value, ast.Call) and self._path(node.value.func) == f"{DEEPSPEED}.initialize":
            for target in node.targets:
                first = target.elts[0] if isinstance(target, ast.Tuple) and target.elts else target
                self._engines.add(ast.unparse(first))
        self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        path = self._path(node)
        if path is not None:
            self._look(path, node.lineno)
            return
        if ast.unparse(node.value) in self._engines:
            self._look_at_engine(node)
        self.generic_visit(node)

    def visit_Dict(self, node: ast.Dict) -> None:
        names = {key.value for key in node.keys if isinstance(key, ast.Constant)}
        if names & _CONFIG_KEYS:
            self.configurations.append((node.lineno, _literal(node)))
        self.generic_visit(node)

    def _path(self, node: ast.AST) -> str | None:
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.insert(0, node.attr)
            node = node.value
        if not isinstance(node, ast.Name) or node.id not in self._paths:
            return None
        return ".".join([self._paths[node.id], *parts])

    def _look(self, path: str, line: int) -> None:
        self.uses.add(path)
        absent = _absent(path.split(".")[1:])
        if absent is not None:
            self.findings.append(Finding(line=line, name=path, why=absent.why, instead=absent.instead))

    def _look_at_engine(self, node: ast.Attribute) -> None:
        if node.attr in ENGINE_NAMES - self.engine_has:
            why, instead = "the engine here has no such name", "See docs/from_deepspeed.md."
            name = f"{ast.unparse(node.value)}.{node.attr}"
            self.findings.append(Finding(line=node.lineno, name=name, why=why, instead=instead))


def _absent(parts: list[str]) -> Absent | None:
    """What the tables say against a path below deepspeed; attributes of what is there are its own."""
    module = ""
    for part in parts:
        if part in children(module):
            module = f"{module}.{part}" if module else part
            continue
        answer = MODULES[module].get(part)
        if answer is None and not part.startswith("__"):
            return Absent(why="there is no such name here", instead="See docs/from_deepspeed.md.")
        return answer if isinstance(answer, Absent) else None
    return None


def _literal(node: ast.Dict) -> dict[str, Any]:
    """The keys of a dict, with the values that are written out; of others nothing is known."""
    found: dict[str, Any] = {}
    for key, value in _pairs(node):
        if isinstance(value, ast.Dict):
            found[key] = _literal(value)
            continue
        try:
            found[key] = ast.literal_eval(value)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            found[key] = "auto"  # a variable's: whatever it is, it is one that the key may have
    return found


def _pairs(node: ast.Dict) -> Iterator[tuple[str, ast.expr]]:
    for key, value in zip(node.keys, node.values, strict=True):
        if isinstance(key, ast.Constant) and isinstance(key.value, str):
            yield key.value, value
