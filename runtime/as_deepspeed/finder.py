"""A finder for sys.meta_path: `deepspeed`, its modules and its distribution's metadata, without a file.

Modules are made from the tables in `names`; each name is looked up when it is asked for, so that the import
itself costs no torch. Importing this module imports no library.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.abc import Loader
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import Distribution, DistributionFinder, PackageNotFoundError
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

from runtime.as_deepspeed.names import LIKE, MODULES, Absent, children
from runtime.errors import BadInput

NAME = "deepspeed"
# A local version (PEP 440): newer than every release that others ask for, and not one of theirs.
VERSION = f"{LIKE}+clusterwright"
VARIABLE, INSTEAD = "CLUSTERWRIGHT_AS_DEEPSPEED", "instead"
START = Path(__file__).parent / "start"
_TABLE = "docs/from_deepspeed.md"


def install() -> None:
    """Answers `import deepspeed` in this process from now on; asking again changes nothing."""
    if not any(isinstance(finder, Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, Finder())


def for_children(environ: Mapping[str, str], *, instead: bool) -> dict[str, str]:
    """The variables with which a Python that is started answers `import deepspeed` as well."""
    before = environ.get("PYTHONPATH", "")
    parts = [part for part in before.split(os.pathsep) if part and part != str(START)]
    variables = {"PYTHONPATH": os.pathsep.join([str(START), *parts])}
    return {**variables, VARIABLE: INSTEAD} if instead else variables


def answering_deepspeed(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that are missing for a Python whose environment asks for our answers; none else."""
    asked = environ.get(VARIABLE, "")
    return for_children(environ, instead=asked == INSTEAD) if asked not in ("", "0") else {}


def refuse_beside_real(environ: Mapping[str, str]) -> None:
    """Nobody should take our answers for DeepSpeed's.

    Raises:
        BadInput: DeepSpeed is installed, and the environment does not say that it is not meant.
    """
    if environ.get(VARIABLE) == INSTEAD:
        return
    found = real_one()
    if found:
        raise BadInput(
            "answer `import deepspeed` from this runtime",
            found=f"DeepSpeed itself is installed ({found})",
            fix="Start without as_deepspeed to use it, uninstall it, or say --instead.",
        )


def real_one() -> str:
    """Where DeepSpeed is installed, or an empty string. A folder of that name without code is not it."""
    spec = PathFinder.find_spec(NAME)
    return spec.origin if spec is not None and spec.origin is not None else ""


class Finder(DistributionFinder, Loader):
    """Finds `deepspeed` and its distribution; whatever else is asked for it leaves to others."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        first, _, below = fullname.partition(".")
        if first != NAME:
            return None
        if not below:
            refuse_beside_real(os.environ)
        if below not in MODULES:
            return None
        # A package, so that modules below it are looked for; there is no folder.
        return ModuleSpec(fullname, self, origin="clusterwright", is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return Answers(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        module.__path__ = []
        if module.__name__ == NAME:
            numbers = [int(part) for part in LIKE.split(".")]
            module.__dict__.update(
                {
                    "__version__": VERSION,
                    "__version_major__": numbers[0],
                    "__version_minor__": numbers[1],
                    "__version_patch__": numbers[2],
                }
            )

    def find_distributions(self, context: Any = DistributionFinder.Context()) -> Iterable[Distribution]:
        if context.name is None or context.name.lower() == NAME:
            yield Metadata()

    def invalidate_caches(self) -> None:
        """There is nothing to forget."""


class Metadata(Distribution):
    """The distribution's name, version and top-level module, as those ask who look before they import."""

    _FILES: ClassVar = {
        "METADATA": f"Metadata-Version: 2.1\nName: {NAME}\nVersion: {VERSION}\n"
        "Summary: Clusterwright's runtime, answering for DeepSpeed\n",
        "top_level.txt": f"{NAME}\n",
    }

    def read_text(self, filename: str) -> str | None:
        return self._FILES.get(str(filename))

    def locate_file(self, path: Any) -> Any:
        raise PackageNotFoundError(f"{NAME}: it has no files")


class Answers(ModuleType):
    """A module of DeepSpeed's layout."""

    def __init__(self, name: str) -> None:
        super().__init__(name, "Clusterwright's runtime under DeepSpeed's name.")
        self._below = name.partition(".")[2]

    @property
    def __all__(self) -> list[str]:
        return sorted(MODULES[self._below])

    def __dir__(self) -> list[str]:
        return sorted({*MODULES[self._below], *children(self._below), *self.__dict__})

    def __getattr__(self, name: str) -> Any:
        if name in children(self._below):
            return importlib.import_module(f"{self.__name__}.{name}")
        answer = MODULES[self._below].get(name)
        if answer is None:
            raise AttributeError(
                f"{self.__name__}.{name} is not in Clusterwright's answers for DeepSpeed: see {_TABLE}"
            )
        found = made(f"{self.__name__}.{name}", answer)
        self.__dict__[name] = found
        return found


def made(path: str, answer: str | Absent) -> Any:
    """What a table says for a name: an object of ours, or what refuses to be used."""
    if isinstance(answer, str):
        module, _, attribute = answer.partition(":")
        found: Any = importlib.import_module(module)
        for part in attribute.split(".") if attribute else ():
            found = getattr(found, part)
        return found
    return _refusing_class(path, answer) if answer.is_class else _refusing_function(path, answer)


def _refuse(path: str, absent: Absent) -> BadInput:
    return BadInput(f"use {path}", found=absent.why, fix=absent.instead)


def _refusing_class(path: str, absent: Absent) -> type:
    """Can be imported, named in isinstance and derived from; nothing can be made of it."""

    def refuse(*_: object, **__: object) -> None:
        raise _refuse(path, absent)

    module, _, name = path.rpartition(".")
    return type(name, (), {"__init__": refuse, "__module__": module, "__doc__": absent.why})


def _refusing_function(path: str, absent: Absent) -> Any:
    def refuse(*_: object, **__: object) -> None:
        raise _refuse(path, absent)

    refuse.__name__ = refuse.__qualname__ = path.rpartition(".")[2]
    refuse.__doc__ = absent.why
    return refuse


def all_names() -> Iterator[tuple[str, str | Absent]]:
    """Every name of the tables with its dotted path below `deepspeed`."""
    for module, names in MODULES.items():
        for name, answer in names.items():
            yield f"{module}.{name}" if module else name, answer
