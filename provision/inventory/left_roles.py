"""Roles that a site does itself (cluster_without): which can be left, and what it brings instead. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from provision.inventory.variables import Fault, Option
from provision.roles.disks import NO_DISK

VARIABLE = "cluster_without"

# Roles that no site leaves, and what it does instead.
_NEVER: Mapping[str, str] = {
    "cluster": "It is the words that all roles share, and changes nothing.",
    "node_access": "It changes nothing: it reaches the nodes, and refuses machines that are not supported.",
    "environment_kind": "It changes no node. Name the kind yourself: cluster_environment_kind: cuda128.",
    "job_user": "It takes an account of yours as it is: name it, cluster_user: train, job_user_uid: 1500.",
    "image_cleanup": "site.yml does not have it; only playbooks/image.yml does.",
}
# What a role needs of others: connections between nodes with their keys, the wheel that is tested.
_NEEDED: Mapping[str, str] = {
    "sshd_policy": "ssh_trust",  # it proves the way between nodes before the old one is closed
    "conda_env": "ssh_trust",
    "runtime": "ssh_trust",
    "smoke_test": "runtime",
}
# What a role would do by a variable, which is then for nothing; and values of it that ask for nothing.
_ASKS: Mapping[str, tuple[str, ...]] = {
    "base_packages": ("base_packages_apt_source", "base_packages_upgrade"),
    "data_disk": ("data_disk_adopt", "data_disk_device", "data_disk_serial"),
    "nvidia_driver": ("nvidia_driver_version",),
    "wireguard_mesh": ("wireguard_mesh_enabled",),
}
_NOTHING = ("", NO_DISK, False, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Brought:
    """What a site says itself where roles are left and others are not."""

    left: str
    by: str
    variable: str
    fix: str


_BROUGHT = (
    Brought(
        left="miniconda",
        by="conda_env",
        variable="conda_env_conda",
        fix="Set it to the path of your conda on the nodes, 24.9 or newer, or leave conda_env as well.",
    ),
    Brought(
        left="conda_env",
        by="runtime",
        variable="cluster_environment_prefix",
        fix=(
            "Set it to the folder of your environment, the same everywhere, with bin/python, pip and torch; "
            "or leave runtime and smoke_test as well."
        ),
    ),
)

Hosts = Mapping[str, tuple[frozenset[str], Mapping[str, Any]]]


def left_roles(values: Mapping[str, Any], roles: Collection[str]) -> list[str]:
    """The roles that a host's variables leave, of those that can be left; what is no list leaves none."""
    stated = values.get(VARIABLE)
    words = stated if isinstance(stated, list | tuple) else ()
    return [str(word) for word in words if str(word) in roles and str(word) not in _NEVER]


def taken(
    values: Mapping[str, Any], options: Mapping[str, Option], roles: Collection[str]
) -> Mapping[str, Any]:
    """Without the variables of roles that are left: nobody reads them, so that nothing in them is missing."""
    left = left_roles(values, roles)
    return {
        name: value for name, value in values.items() if name not in options or options[name].role not in left
    }


def left_role_faults(hosts: Hosts, roles: Collection[str]) -> Iterator[Fault]:
    """Of each role that is left what speaks against it, or what the site has to say instead."""
    if len({str(values.get(VARIABLE)) for _, values in hosts.values()}) > 1:
        yield _fault(hosts, "differs between nodes", "Say it once for the site, in group_vars/all.")
        return
    names, values = next(iter(hosts.values()), (frozenset[str](), {}))
    stated = values.get(VARIABLE, ())
    words = [str(word) for word in stated] if isinstance(stated, list | tuple) else []
    for word in words:
        if word not in roles:
            able = sorted(set(roles) - set(_NEVER))
            yield _fault(hosts, f"lists {word}, which is no role", f"It takes {', '.join(able)}.")
        elif word in _NEVER:
            yield _fault(hosts, f"lists {word}, which cannot be left", _NEVER[word])
    left = left_roles(values, roles)
    yield from _needed(hosts, left)
    yield from _for_nothing(hosts, left)
    for brought in _BROUGHT:
        if brought.left in left and brought.by not in left and brought.variable not in names:
            what = (
                f"lists {brought.left}, and {brought.by} needs what it makes: {brought.variable} is not set"
            )
            yield _fault(hosts, what, brought.fix)


def _needed(hosts: Hosts, left: Sequence[str]) -> Iterator[Fault]:
    """One fault for each role that is left, with all roles that have to be left with it."""
    for role in left:
        without = [role]
        for name, needed in _NEEDED.items():
            if needed in without:
                without.append(name)
        if lacking := [name for name in without if name not in left]:
            what = f"lists {role}, without which {' and '.join(lacking)} cannot be"
            fix = f"Leave {'these' if len(lacking) > 1 else 'it'} as well, and do without jobs: {VARIABLE}: "
            yield _fault(hosts, what, f"{fix}[{', '.join([*left, *lacking])}]")


def _for_nothing(hosts: Hosts, left: Sequence[str]) -> Iterator[Fault]:
    for role in left:
        for variable in _ASKS.get(role, ()):
            asking = [host for host, (_, values) in hosts.items() if values.get(variable) not in _NOTHING]
            if asking:
                yield Fault(
                    variable=variable,
                    hosts=asking,
                    what=f"{VARIABLE} lists {role}, and {variable} asks for what it does",
                    fix=f"Leave {variable} out, or take {role} out of {VARIABLE}.",
                )


def _fault(hosts: Hosts, what: str, fix: str) -> Fault:
    return Fault(variable=VARIABLE, hosts=list(hosts), what=f"{VARIABLE} {what}", fix=fix)
