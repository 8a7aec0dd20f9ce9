"""Which file of a site's inventory holds a node's line, of those that Ansible reads."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from provision.edges.files import text_of
from provision.errors import BadInput
from provision.inventory.edit_rules import NodeLine, NodeLines, covers, mentions
from provision.inventory.formats import edits_of
from provision.inventory.members import Action

# Of ansible-core 2.19 (INVENTORY_IGNORE_EXTS, IGNORED_ALWAYS) and this project's ansible.cfg; .ini is read.
_IGNORED = re.compile(
    r"(\.pyc|\.pyo|\.swp|\.bak|~|\.rpm|\.md|\.txt|\.rst|\.orig|\.cfg|\.retry)$"
    r"|^\.|^(host_vars|group_vars|vars_plugins|secrets|known_hosts)$"
)


_NO_NODES: NodeLines[Any] = NodeLines(lines=(), groups=())


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    """A file, its text and its nodes, or why they are not known.

    `is_edited`: its format is one that is; `fault`: what is wrong in it.
    """

    path: Path
    text: str = ""
    nodes: NodeLines[Any] = _NO_NODES
    why: str = "it lists no nodes of the cluster"
    is_edited: bool = True
    fault: str = ""

    @property
    def listed(self) -> list[NodeLine[Any]]:
        return [line for line in self.nodes.lines if line.group in self.nodes.groups]


def edited_file(inventory: Path, action: Action, node: str, group: str | None) -> Path:
    """The file in which the node's line stands, or is to stand.

    Args:
        group: of a node that is added, where it is said.

    Raises:
        BadInput: there is none, or more than one.
    """
    asked = f"{action} node {node} in the inventory {inventory}"
    if not inventory.exists():
        raise BadInput(asked, found="there is none", fix="Correct -i.")
    files = [_file(path) for path in sources(inventory)]
    if len(files) == 1 and files[0].is_edited:
        return files[0].path.resolve()
    listing = [file for file in files if file.listed]
    having = [file for file in listing if any(covers(line.name, node) for line in file.listed)]
    if not having and group is not None:
        having = [file for file in listing if group in {line.group for line in file.listed}]
    if not having and (faulty := next((file for file in files if file.fault), None)):
        fix = "Correct it, then run the command again."
        raise BadInput(f"read {faulty.path}", found=faulty.fault, fix=fix)
    chosen = having or listing
    if not chosen:
        raise BadInput(
            asked,
            found=_shown(inventory, files),
            fix="List the nodes in the group cluster, or one below it, in one YAML or ini file, "
            "as inventory/example/hosts.yml does.",
        )
    if len(chosen) > 1 and not (action is Action.remove and not having):
        raise BadInput(
            asked,
            found=f"the cluster's nodes stand in several files: {_names(file.path for file in chosen)}",
            fix="Write its line by hand in one of them alone, then give the same command again"
            + (", or say --group of which only one file lists nodes." if action is Action.add else "."),
        )
    for file in files:
        if file is not chosen[0] and _holds(file, node, is_removed=action is Action.remove):
            raise BadInput(
                asked,
                found=f"it stands in {chosen[0].path}, and {file.path} names it as well",
                fix="Let only one of them say something of it, then give the same command again.",
            )
    return chosen[0].path.resolve()


def sources(inventory: Path) -> list[Path]:
    """The files that Ansible takes for an inventory's, in its order."""
    if not inventory.is_dir():
        return [inventory]
    names = sorted(os.listdir(inventory))
    return [path for name in names if not _IGNORED.search(name) for path in sources(inventory / name)]


def _file(path: Path) -> _File:
    """A file as it is; one that cannot be read says why."""
    if not path.is_file():
        return _File(path=path, why="no regular file", is_edited=False)
    text = text_of(path)
    if path.suffix in (".toml", ".json"):
        return _File(path=path, text=text, why=f"{path.suffix[1:].upper()} is not edited", is_edited=False)
    if text.startswith("#!"):
        return _File(path=path, text=text, why="a program", is_edited=False)
    if re.search(r"^plugin\s*:", text, re.MULTILINE):
        return _File(path=path, text=text, why="the settings of a plugin", is_edited=False)
    try:
        return _File(path=path, text=text, nodes=edits_of(text).nodes(text))
    except BadInput as e:
        return _File(path=path, text=text, fault=e.found)


def _holds(file: _File, node: str, *, is_removed: bool) -> bool:
    """Whether a file beside the edited one says anything of the node, or would keep its name."""
    lines = [line for line in file.nodes.lines if covers(line.name, node)]
    if is_removed:
        return bool(lines or mentions(file.text, node))
    return any(line.values for line in lines)


def _shown(inventory: Path, files: list[_File]) -> str:
    """What Ansible reads there, and what it leaves out."""
    read = [f"{file.path.name} ({file.why})" for file in files]
    names = sorted(os.listdir(inventory)) if inventory.is_dir() else []
    ignored = [name for name in names if _IGNORED.search(name) and (inventory / name).is_file()]
    return f"Ansible reads {', '.join(read) or 'no file there'}" + (
        f", and ignores {', '.join(ignored)} for the name" if ignored else ""
    )


def _names(paths: Iterable[Path]) -> str:
    return ", ".join(str(path) for path in paths)
