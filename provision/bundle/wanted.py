"""What a site's bundle is to hold, from the variables as its roles see them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from provision.environments.kinds import wheels_name
from provision.errors import BadInput

Variables = Mapping[str, Any]

# Said once for all nodes, since a bundle has one place for what they name.
_ONCE = (
    *("cluster_name", "cluster_environment_name", "cluster_environment_chosen", "cluster_environment_folder"),
    *("cluster_architecture", "conda_env_conda_lock", "conda_env_wheel_lock", "conda_env_checks"),
    *("conda_env_channel", "conda_env_wheel_source"),
    *("base_packages_apt_source", "base_packages_apt_suite", "base_packages_apt_components"),
    *("base_packages_apt_key", "miniconda_installer_source", "miniconda_installer_sha256"),
    *("nvidia_driver_version", "nvidia_driver_apt_source", "nvidia_driver_apt_suite"),
    *("nvidia_driver_apt_components", "nvidia_driver_apt_key"),
)
VARIABLES = (*_ONCE, "base_packages_names", "nvidia_driver_names", "cluster_without")


@dataclass(frozen=True, slots=True, kw_only=True)
class AptSource:
    """An apt repository that the site names: its address, suite and components, and the key that signs it."""

    name: str
    address: str
    suite: str
    components: Sequence[str]
    key: str

    def line(self, key: Path) -> str:
        """Its line of a sources.list, with the file that holds the key; without one apt's own keys count."""
        signed = f"[signed-by={key}] " if self.key else ""
        return " ".join([f"deb {signed}{self.address} {self.suite}", *self.components])


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a bundle is to hold, and where it comes from.

    `release` is Debian's or Ubuntu's code name, "" this machine's own; `channel` and `wheel_source` are
    addresses, the latter "" for the index that this machine uses; `drivers` are packages of which each is
    resolved for itself, and those that apt does not know are left out.
    """

    cluster: str
    environment: str
    kinds: Sequence[str]
    architecture: str
    release: str
    packages: Sequence[str]
    drivers: Sequence[str]
    apt_sources: Sequence[AptSource]
    installer: str
    installer_sha256: str
    channel: str
    conda_lock: Path
    wheel_locks: Sequence[Path]
    wheel_source: str
    others: Sequence[Path]

    @property
    def made_for(self) -> dict[str, str]:
        return {
            "cluster": self.cluster,
            "environment": self.environment,
            "kinds": " ".join(self.kinds),
            "architecture": self.architecture,
            "release": self.release,
        }


def wanted_of(
    nodes: Mapping[str, Variables], *, kinds: Sequence[str], channel: str, release: str, more: Sequence[str]
) -> Wanted:
    """What all nodes of a site need.

    Args:
        nodes: VARIABLES of each node, as its roles see them.
        kinds: of the environment, instead of the one that the site names or has chosen.
        channel: address of the conda channel, where the site says no more than its name.
        more: Debian packages beside those of the roles.

    Raises:
        BadInput: a node says otherwise than the first, or something is not said.
    """
    said = _said_once(nodes)
    chosen = tuple(kinds) or (
        (said["cluster_environment_chosen"],) if said["cluster_environment_chosen"] else ()
    )
    if not chosen:
        raise _refusal(
            "cluster_environment_kind is auto, and no kind is chosen yet",
            "Name those that the nodes may need: --kind cuda126 --kind cuda130. envs/README.md says which "
            "driver each takes.",
        )
    folder, architecture = Path(said["cluster_environment_folder"]), said["cluster_architecture"]
    locks = [folder / wheels_name(kind, architecture) for kind in chosen]
    locks = locks if kinds else [Path(said["conda_env_wheel_lock"])]
    packages = {name for node in nodes.values() for name in _packages(node)}
    return Wanted(
        cluster=said["cluster_name"],
        environment=said["cluster_environment_name"],
        kinds=chosen,
        architecture=architecture,
        release=release,
        packages=sorted({*packages, *more}),
        drivers=_drivers(nodes, said),
        apt_sources=_apt_sources(said),
        installer=_told(said, "miniconda_installer_source"),
        installer_sha256=_told(said, "miniconda_installer_sha256"),
        channel=_channel(said["conda_env_channel"], channel),
        conda_lock=Path(said["conda_env_conda_lock"]),
        wheel_locks=locks,
        wheel_source=said["conda_env_wheel_source"],
        others=[Path(said["conda_env_checks"]), folder / "environment.yml"],
    )


def _said_once(nodes: Mapping[str, Variables]) -> Variables:
    first, *others = nodes
    for name in _ONCE:
        odd = [node for node in others if nodes[node].get(name) != nodes[first].get(name)]
        if odd:
            raise _refusal(
                f"{name} of {odd[0]} is another one than that of {first}",
                "Make one bundle for each part of the site: an inventory with the nodes of one alone.",
            )
    return nodes[first]


def _packages(node: Variables) -> Sequence[str]:
    return () if "base_packages" in node["cluster_without"] else tuple(node["base_packages_names"])


def _drivers(nodes: Mapping[str, Variables], said: Variables) -> Sequence[str]:
    if not said["nvidia_driver_version"]:
        return ()
    names = [
        name
        for node in nodes.values()
        if "nvidia_driver" not in node["cluster_without"]
        for name in node["nvidia_driver_names"]
    ]
    return tuple(dict.fromkeys(names))


def _apt_sources(said: Variables) -> Sequence[AptSource]:
    roles = ["base_packages", *(["nvidia_driver"] if said["nvidia_driver_version"] else [])]
    return tuple(
        AptSource(
            name=role,
            address=said[f"{role}_apt_source"],
            suite=said[f"{role}_apt_suite"],
            components=tuple(said[f"{role}_apt_components"]),
            key=said[f"{role}_apt_key"].strip(),
        )
        for role in roles
        if said[f"{role}_apt_source"]
    )


def _told(said: Variables, name: str) -> str:
    if not said[name]:
        fix = f"Set {name} in the inventory: envs/miniconda_installers.tsv names versions and their sha256."
        raise _refusal(f"{name} is empty", fix)
    return str(said[name])


def _channel(stated: str, option: str) -> str:
    address = option or stated
    if "://" not in address:
        raise _refusal(
            f"the conda channel {address} is a name, and where it lies is not said",
            "Say its address: --channel https://conda.example/conda-forge, or conda_env_channel of the site.",
        )
    return address.rstrip("/")


def _refusal(found: str, fix: str) -> BadInput:
    return BadInput("make a bundle of the site", found=found, fix=fix)
