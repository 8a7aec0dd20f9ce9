"""Makes the folder of an environment, whole or not at all."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path

from provision.environments.brought import Brought
from provision.errors import BadInput

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_PATTERN = "llm"  # whose kinds and whose conda layer a new environment takes
_CHECKS = """\
---
# What must hold in the environment once it is built, run on each node by its Python.
- name: the interpreter is the one that was locked
  python: |
    import sys
    assert sys.version_info[:2] == (3, 11), sys.version
- name: what was asked for is there and imports
  python: |
    import importlib
    import importlib.metadata
    import importlib.util
    for name in {names}:
        importlib.metadata.version(name)
        module = name.replace("-", "_")
        if importlib.util.find_spec(module) is not None:
            importlib.import_module(module)
"""


def files_of(name: str, brought: Brought, *, environments: Path, source: str) -> dict[str, str]:
    """The files of a new environment, by their names.

    Raises:
        BadInput: the name is none, it exists, or the folder has no environment to take kinds from.
    """
    asked = f"add the environment {name!r}"
    if not _NAME.fullmatch(name):
        fix = "Name it in small letters, digits, - and _, 32 at most."
        raise BadInput(asked, found="it is no name of a folder", fix=fix)
    if name == "base":
        raise BadInput(asked, found="conda calls its own root so", fix="Take another name.")
    if (environments / name).exists() or (environments / name).is_symlink():
        fix = "Take another name; what is there stays as it is."
        raise BadInput(asked, found=f"{environments / name} exists", fix=fix)
    if not brought.wheels:
        raise BadInput(asked, found=f"{source} asks for no wheel", fix="Name another file with --from.")
    pattern = environments / _PATTERN
    kinds = {path.name: path.read_text() for path in sorted(pattern.glob("wheels-*.in"))}
    if not kinds or not (pattern / "environment.yml").is_file():
        fix = "Name the folder of the checkout with --environments."
        raise BadInput(asked, found=f"{pattern} has no kinds to take", fix=fix)
    plain = [line for line in brought.wheels if ";" not in line]
    names = [found[0] for line in plain if (found := re.match(r"[a-z0-9-]+", line))]
    return {
        "environment.yml": _conda_layer(name, (pattern / "environment.yml").read_text()),
        "wheels.in": _wheels(brought, source),
        "checks.yml": _CHECKS.replace("{names}", json.dumps(names)),
        **{file: _kind(text) for file, text in kinds.items()},
    }


def _conda_layer(name: str, pattern: str) -> str:
    text = re.sub(r"^name: .*$", f"name: {name}", pattern, flags=re.MULTILINE)
    return text.replace(f"environment `{_PATTERN}`", f"environment `{name}`")


def _wheels(brought: Brought, source: str) -> str:
    left = [f"# not taken: {line}: {why}" for line, why in brought.left]
    head = f"# The wheels' top level, made from {source}; the kinds add torch."
    return "\n".join([head, *left, *brought.wheels, ""])


def _kind(pattern: str) -> str:
    """The kind's own words, and the environment that brings its torch, without what the other one adds."""
    lines = pattern.splitlines()
    head = takewhile(lambda line: line.startswith("#"), lines)
    return "\n".join([*head, *(line for line in lines if line.startswith("-r ../")), "-r wheels.in", ""])


def write_environment(folder: Path, files: Mapping[str, str]) -> None:
    """Writes all of them beside it and renames: there is never half a folder, nor another's overwritten."""
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        for name, text in files.items():
            (scratch / name).write_text(text)
        scratch.chmod(0o755)
        if folder.exists():
            fix = "Take another name; what is there stays as it is."
            raise BadInput(f"add the environment {folder.name}", found=f"{folder} exists", fix=fix)
        scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
