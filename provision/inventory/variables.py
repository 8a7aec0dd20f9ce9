"""Variables of an inventory against what the roles take: unknown names, wrong types, missing companions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from provision.roles.gpu_driver import version_of

_TYPES: Mapping[str, tuple[type, ...]] = {
    "str": (str,),
    "path": (str,),
    "int": (int,),
    "float": (float, int),
    "bool": (bool,),
    "list": (list, tuple),
    "dict": (Mapping,),
}
# What JSON, YAML and, but for bool, Python take for one of that type.
_EXAMPLES: Mapping[str, str] = {
    "str": '"text"',
    "path": '"/path"',
    "int": "8",
    "float": "0.5",
    "bool": "true",
    "list": '["a", "b"]',
    "dict": '{"a": 1}',
}
_SHA256 = re.compile(r"[0-9a-f]{64}")
# Likeness (difflib's ratio) from which a name outside of all roles counts as a slip: two letters swapped in
# ssh_trust_user give 0.93.
_SLIP = 0.87


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """A variable that a role takes, from its argument specification."""

    name: str
    role: str
    type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A variable that is wrong for some machines."""

    variable: str
    hosts: list[str]
    what: str
    fix: str


Hosts = Mapping[str, tuple[frozenset[str], Mapping[str, Any]]]


def variable_faults(hosts: Hosts, options: Mapping[str, Option]) -> list[Fault]:
    """Faults of the variables that are set (names) and of what the roles will see (values), by host."""
    return [*_unknown(hosts, options), *_wrong_types(hosts, options), *_without_checksum(hosts)]


def _unknown(hosts: Hosts, options: Mapping[str, Option]) -> Iterable[Fault]:
    for name in sorted({name for names, _ in hosts.values() for name in names} - set(options)):
        role = next((role for role in _roles(options) if name.startswith(f"{role}_")), "")
        meant = _meant(name, role, options)
        if role or meant:
            yield Fault(
                variable=name,
                hosts=[host for host, (names, _) in hosts.items() if name in names],
                what=f"no role takes the variable {name}",
                fix=f"Did you mean {meant}?"
                if meant
                else f"Role {role} takes {', '.join(_of(role, options))}.",
            )


def _roles(options: Mapping[str, Option]) -> list[str]:
    return sorted({option.role for option in options.values()})


def _of(role: str, options: Mapping[str, Option]) -> list[str]:
    return sorted(option.name for option in options.values() if option.role == role)


def _meant(name: str, role: str, options: Mapping[str, Option]) -> str:
    """The option that was probably meant; within a role only what follows its name is compared."""
    if not role:
        return "".join(get_close_matches(name, options, 1, _SLIP))
    endings = [option.removeprefix(role) for option in _of(role, options)]
    return "".join(role + close for close in get_close_matches(name.removeprefix(role), endings, 1))


def _wrong_types(hosts: Hosts, options: Mapping[str, Option]) -> Iterable[Fault]:
    for name, option in options.items():
        wrong = {
            host: values[name]
            for host, (_, values) in hosts.items()
            if name in values and not _fits(values[name], option.type)
        }
        if wrong:
            value = next(iter(wrong.values()))
            yield Fault(
                variable=name,
                hosts=list(wrong),
                what=f"{name} is {value!r}, a {_kind(value)}; role {option.role} takes {option.type}",
                fix=_written_as(name, option.type),
            )


def _written_as(name: str, type_name: str) -> str:
    """How a value of that type is written; an ini file and -e NAME=VALUE make text of much."""
    value = _EXAMPLES[type_name]
    in_ini = value.capitalize() if type_name == "bool" else value
    return (
        f"Write it as {type_name}, for example {name}: {value} in YAML, {name}={in_ini} in an ini file, "
        f"""-e '{{"{name}": {value}}}' for one run."""
    )


def _fits(value: object, type_name: str) -> bool:
    if isinstance(value, bool) and type_name != "bool":
        return False
    return isinstance(value, _TYPES.get(type_name, (object,)))


def _kind(value: object) -> str:
    return next(
        (name for name in ("bool", "str", "int", "float", "list", "dict") if _fits(value, name)), "null"
    )


def _without_checksum(hosts: Hosts) -> Iterable[Fault]:
    """What runs after it was fetched needs an address, and the sha256 that was published with it."""
    names = sorted({name for _, values in hosts.values() for name in values if name.endswith("_sha256")})
    for name in names:
        source = name.removesuffix("_sha256") + "_source"
        if nowhere := [host for host, (_, values) in hosts.items() if not values.get(source)]:
            yield Fault(
                variable=source,
                hosts=nowhere,
                what=f"{source} is empty, so there is nothing to install from",
                fix="Set it to an address (http, https, file) that the nodes reach.",
            )
        elif wrong := [host for host, (_, values) in hosts.items() if not _is_sha256(values[name])]:
            yield Fault(
                variable=name,
                hosts=wrong,
                what=f"{source} is set, but {name} is not the 64 hexadecimal digits of a sha256",
                fix="Copy it from where the file is published, or run sha256sum on a copy that you trust.",
            )


def _is_sha256(value: object) -> bool:
    return isinstance(value, str) and _SHA256.fullmatch(value) is not None


def sources_and_locks(
    hosts: Sequence[Mapping[str, Any]],
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """The (variable, address) and (variable, path) pairs that must exist, each once."""
    pairs = sorted({(name, value) for values in hosts for name, value in values.items() if _is_text(value)})
    sources = [(name, value) for name, value in pairs if name.endswith("_source") and "://" in value]
    return sources, [(name, value) for name, value in pairs if name.endswith("_lock")]


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""


# conda verifies the sha256 of a lock's lines from here on; an older one refuses such a lock (envs/README.md).
OLDEST = "24.9"
_NAME = re.compile(r"Miniconda3-py\d+_([0-9.]+)-\d+-Linux-(x86_64|aarch64)\.sh$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Installer:
    """A published installer: its conda's version and the processors that it is for."""

    conda: str
    architecture: str


def installers_in(table: str) -> dict[str, Installer]:
    """By sha256 those of envs/miniconda_installers.tsv."""
    rows = [line.split("\t") for line in table.splitlines() if line and not line.startswith("#")]
    known = {row[3]: _named(row[2]) for row in rows if len(row) == 4}
    return {sha256: installer for sha256, installer in known.items() if installer}


def _named(address: str) -> Installer | None:
    match = _NAME.search(address)
    return Installer(conda=match[1], architecture=match[2]) if match else None


def installer_fault(
    source: str, sha256: str, *, architecture: str, known: Mapping[str, Installer]
) -> tuple[str, str] | None:
    """What is wrong with an installer and what to do; None for one that nobody knows, too."""
    installer = known.get(sha256) or _named(source)
    if installer is None:
        return None
    if installer.architecture != architecture:
        found = f"the installer is for {installer.architecture}, and cluster_architecture is {architecture}"
        return found, "Take the one of envs/miniconda_installers.tsv for these processors."
    if (version_of(installer.conda) or ()) < (version_of(OLDEST) or ()):
        found = (
            f"the installer brings conda {installer.conda}, which refuses our locks (sha256 in their lines)"
        )
        return found, f"Take one of envs/miniconda_installers.tsv from {OLDEST} on."
    return None
