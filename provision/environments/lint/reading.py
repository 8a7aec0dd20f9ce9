"""Reads a lock file of whatever format from a place that nobody vouches for."""

from __future__ import annotations

import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from provision.environments.lint.conda_formats import conda_lock, explicit
from provision.environments.lint.entries import LockFile
from provision.environments.lint.pixi_format import pixi_lock
from provision.environments.lint.requirements_format import requirements
from provision.environments.lint.toml_formats import pylock, uv_lock
from provision.errors import BadInput
from provision.printable import one_line

_MOST_BYTES = 64 << 20
_DEEPEST = 100
_FIX = (
    "Name a conda-lock.yml, an explicit lock (@EXPLICIT), requirements, pylock.toml, uv.lock or pixi.lock, "
    "as its program wrote it."
)


def read_lock(path: Path) -> LockFile:
    """The lock that a file holds.

    Raises:
        BadInput: it holds none, or more than a lock can.
    """
    shown = one_line(str(path))
    try:
        text = _text(path)
        lock = _parsed(shown, path.name, text)
    except OSError as e:
        raise BadInput(f"read the lock {shown}", found=str(e.strerror), fix="Name a lock file.") from e
    except (ValueError, TypeError, AttributeError, KeyError, IndexError, yaml.YAMLError, RecursionError) as e:
        raise BadInput(f"read the lock {shown}", found=_reason(e), fix=_FIX) from e
    if not (lock.packages or lock.unpinned):
        raise BadInput(f"read the lock {shown}", found="it holds no package", fix=_FIX)
    return lock


def _reason(problem: Exception) -> str:
    if isinstance(problem, UnicodeDecodeError):
        return "it is no text"
    if isinstance(problem, yaml.MarkedYAMLError) and problem.problem_mark:
        return f"it is no YAML, line {problem.problem_mark.line + 1}"
    if isinstance(problem, yaml.YAMLError):
        return "it is no YAML"
    if isinstance(problem, tomllib.TOMLDecodeError):
        return one_line(f"it is no TOML: {problem}")[:200]
    if type(problem) is ValueError and "int string conversion" not in str(problem):
        return one_line(str(problem))[:200]
    return "it is not built as a lock is"


def _text(path: Path) -> str:
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise ValueError("it is no file")
    with path.open("rb") as stream:
        content = stream.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise ValueError(f"it is larger than {_MOST_BYTES >> 20} MiB")
    text = content.decode("utf-8-sig")
    if "\0" in text:
        raise ValueError("it is no text")
    return text


def _parsed(shown: str, name: str, text: str) -> LockFile:
    lines = [line.strip() for line in text.splitlines()]
    if "@EXPLICIT" in lines or ("# platform: " in text[:400] and "# channel: " in text[:400]):
        return explicit(shown, text)
    if name.endswith((".toml", "uv.lock")):
        tree = tomllib.loads(text)
        return pylock(shown, tree) if "lock-version" in tree else uv_lock(shown, tree)
    if name.endswith((".yml", ".yaml", "pixi.lock")):
        return _of_tree(shown, tree_of(text))
    return requirements(shown, text)


def _of_tree(shown: str, tree: Mapping[str, Any]) -> LockFile:
    if "environments" in tree and "packages" in tree:
        return pixi_lock(shown, tree)
    if "package" in tree and tree.get("version") == 1:
        return conda_lock(shown, tree)
    if "dependencies" in tree:
        raise ValueError("it is an environment.yml, which locks nothing")
    raise ValueError("it has neither packages of conda-lock (format 1) nor of pixi")


def tree_of(text: str) -> Mapping[str, Any]:
    """A YAML mapping, of bounded depth and without what multiplies: libyaml's composer overflows its stack.

    Raises:
        ValueError, yaml.YAMLError: it is none.
    """
    depth = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.AliasEvent):
            raise ValueError("it refers to a part of itself (*alias), as no lock does")
        if depth > _DEEPEST:
            raise ValueError(f"it is nested more than {_DEEPEST} deep")
    tree = yaml.load(text, Loader=yaml.CSafeLoader)
    if not isinstance(tree, dict):
        raise ValueError("it is no mapping")
    return tree
