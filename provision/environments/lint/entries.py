"""What a lock file says, whatever its format, and what a rule finds in it. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

CONDA, PIP = "conda", "pip"


class Severity(StrEnum):
    """An error will fail or lie on a node; a warning may."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """One package of a lock.

    name: lower case, with `-` for `_` and `.` where it is Python's. files: names of its wheels, conda
    packages or archives. source: `index`, `git`, `path`, `editable` or `url`. hashes: `sha256:0123`.
    """

    name: str
    version: str = ""
    manager: str = PIP
    platform: str = ""
    url: str = ""
    source: str = "index"
    files: tuple[str, ...] = ()
    hashes: tuple[str, ...] = ()
    needs: Mapping[str, str] = field(default_factory=dict)
    marker: str = ""
    category: str = ""
    line: int = 0

    @property
    def build(self) -> str:
        """The build string of a conda package: py311_cuda120_0."""
        stem = re.sub(r"\.(conda|tar\.bz2)$", "", self.files[0]) if self.files else ""
        return stem.rpartition("-")[2] if self.manager == CONDA else ""

    @property
    def release(self) -> tuple[int, ...]:
        """The numbers that its version begins with."""
        return numbers(self.version)

    @property
    def local(self) -> str:
        """What stands behind the + of its version: cu124, cpu."""
        return self.version.partition("+")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """Where a lock says that packages come from."""

    url: str
    line: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LockFile:
    """A lock as read. conditional: one package may have several versions, of which markers choose."""

    path: str
    format: str
    packages: tuple[Package, ...]
    indexes: tuple[Index, ...] = ()
    platforms: tuple[str, ...] = ()
    hashed_platforms: tuple[str, ...] | None = None
    records_virtual: bool = True
    conditional: bool = False
    python: str = ""
    may_name_no_place: bool = False
    unpinned: tuple[Package, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Floors:
    """What nodes have; None where nobody said."""

    glibc: tuple[int, ...] | None = None
    driver: tuple[int, ...] | None = None
    compute_capability: tuple[int, ...] | None = None
    architecture: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The packages that one machine would get out of a lock: those of one platform, and its pip packages."""

    lock: LockFile
    platform: str
    packages: tuple[Package, ...]
    named: Mapping[tuple[str, str], Package]
    floors: Floors

    def conda(self, name: str) -> Package | None:
        """The conda package of this name."""
        return self.named.get((CONDA, name))

    def pip(self, name: str) -> Package | None:
        """The Python package of this name."""
        return self.named.get((PIP, name))


Fault = tuple[Package | Index | None, str]
Check = Callable[[Group], Iterator[Fault]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One thing that can be wrong. fix: how to mend it. of_lock: of the whole file, asked once."""

    id: str
    severity: Severity
    check: Check
    fix: str
    of_lock: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a rule found, where."""

    rule: str
    severity: str
    file: str
    line: int
    package: str
    platform: str
    problem: str
    fix: str


def error(name: str, check: Check, fix: str, *, of_lock: bool = False) -> Rule:
    """A rule whose finding is an error."""
    return Rule(id=name, severity=Severity.ERROR, check=check, fix=fix, of_lock=of_lock)


def warning(name: str, check: Check, fix: str, *, of_lock: bool = False) -> Rule:
    """A rule whose finding is a warning."""
    return Rule(id=name, severity=Severity.WARNING, check=check, fix=fix, of_lock=of_lock)


def numbers(version: str) -> tuple[int, ...]:
    """The numbers that a version begins with: 2.6.0+cu124 -> (2, 6, 0)."""
    found = re.match(r"v?(\d{1,9}(?:\.\d{1,9}){0,9})", version)
    return tuple(int(part) for part in found[1].split(".")) if found else ()


def dotted(parts: Sequence[int]) -> str:
    """The other way round."""
    return ".".join(str(part) for part in parts)


def canonical(name: str) -> str:
    """A Python package's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()
