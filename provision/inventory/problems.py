"""What is wrong with a site's inventory, found on the controller before any node is touched."""

from __future__ import annotations

import ipaddress
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any

import yaml

from provision.inventory.left_roles import VARIABLE, left_role_faults, taken
from provision.inventory.mesh import MeshNode, mesh_faults
from provision.inventory.proxy import proxy_faults
from provision.inventory.variables import Installer, Option, installer_fault, variable_faults
from provision.roles.disks import NO_DISK
from provision.roles.gpu_driver import version_of
from provision.roles.ssh_trust.cluster_key import bad_source

# RFC 1123, 2.1: letters, digits, hyphens (none at an end), 63 characters a label; Linux takes 64 in all.
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_MOST_NAME = 64
_MOST_SLOTS = 256
_MOST_PORT = 65535
_MOST_INTERFACE = 15  # IFNAMSIZ - 1, linux/if.h


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One fault: what it is, where it stands and how to correct it."""

    what: str
    where: str
    fix: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}. {self.fix}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A machine: the names of its inventory variables, and the values that its roles will see."""

    name: str
    set_names: frozenset[str]
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """An inventory: machines, groups, roles, what these take, and the texts of its files by path."""

    hosts: Sequence[Host]
    groups: frozenset[str]
    roles: frozenset[str]
    options: Mapping[str, Option]
    texts: Mapping[str, str] = field(default_factory=dict)
    installers: Mapping[str, Installer] = field(default_factory=dict)


def problems(site: Site) -> list[Problem]:
    """Every fault of the site, in the order in which a person would correct them."""
    found = [*_groups(site), *_duplicate_keys(site), *_names(site), *_addresses(site), *_slots(site)]
    stated = {host.name: (host.set_names, host.values) for host in site.hosts}
    for fault in (*left_role_faults(stated, site.roles), *proxy_faults(stated)):
        found.append(Problem(what=fault.what, where=_where(site, fault.variable, fault.hosts), fix=fault.fix))
    read = [replace(host, values=taken(host.values, site.options, site.roles)) for host in site.hosts]
    site = replace(site, hosts=read)
    for fault in variable_faults(
        {host.name: (host.set_names, host.values) for host in site.hosts}, site.options
    ):
        found.append(Problem(what=fault.what, where=_where(site, fault.variable, fault.hosts), fix=fault.fix))
    found += [*_data_disks(site), *_logins(site), *_replaced(site), *_key_sources(site), *_mesh(site)]
    return [*found, *_environments(site), *_machines(site)]


def _groups(site: Site) -> Iterable[Problem]:
    if missing := sorted(site.roles - site.groups):
        yield Problem(
            what=f"the groups {', '.join(missing)} are missing",
            where="inventory",
            fix="Link inventory/groups.yml into the site's folder: ln -s ../groups.yml 00-groups.yml",
        )
    if not site.hosts:
        yield Problem(
            what="the group cluster has no machines",
            where="inventory",
            fix="Name the site with -i, and list its machines under cluster in its hosts.yml.",
        )


def _duplicate_keys(site: Site) -> Iterable[Problem]:
    """A parser keeps the last of two equal keys, so the first machine of that name would be lost."""
    for path, text in site.texts.items():
        for key, lines in duplicate_keys(text):
            yield Problem(
                what=f"'{key}' stands {len(lines)} times, and only the last one would count",
                where=f"{path}:{','.join(map(str, lines))}",
                fix="Give each machine its own name, and each variable one value.",
            )


def _names(site: Site) -> Iterable[Problem]:
    for host in site.hosts:
        if (reason := _bad_name(host.name)) != "":
            yield Problem(
                what=f"'{host.name}' is not a host name (RFC 1123): {reason}",
                where=_where(site, host.name, [host.name]),
                fix="Use lower case letters, digits and hyphens, as in te1.",
            )


def _bad_name(name: str) -> str:
    if len(name) > _MOST_NAME:
        return f"it has {len(name)} characters, at most {_MOST_NAME} are possible"
    if name.replace(".", "").isdigit():
        return "it reads as an address"
    if name.split(".")[0] == "localhost":
        return "localhost is every machine's name for itself"
    labels = [label for label in name.split(".") if not _LABEL.fullmatch(label)]
    return f"the part '{labels[0]}' is not possible" if labels else ""


def _addresses(site: Site) -> Iterable[Problem]:
    holders: defaultdict[str, list[str]] = defaultdict(list)
    for host in site.hosts:
        text = str(host.values.get("cluster_address", host.name))
        holders[_normal(text)].append(host.name)
        if (reason := _bad_address(text)) != "":
            yield Problem(
                what=f"the address of {host.name} is '{text}': {reason}",
                where=_where(site, text, [host.name]),
                fix="Set ansible_host, or cluster_address, to the address that its peers reach.",
            )
    for address, names in holders.items():
        if len(names) > 1:
            yield Problem(
                what=f"{' and '.join(names)} have one address, {address}",
                where=_where(site, address, names),
                fix="Give each machine its own ansible_host or cluster_address.",
            )


def _normal(address: str) -> str:
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        return address


def _bad_address(text: str) -> str:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return "not an IP address"
    kinds = ("loopback", "multicast", "unspecified", "link_local", "reserved")
    wrong = [kind for kind in kinds if getattr(address, f"is_{kind}")]
    return f"a {wrong[0].replace('_', '-')} address" if wrong else ""


def _slots(site: Site) -> Iterable[Problem]:
    for host in site.hosts:
        slots = host.values.get("cluster_slots", 1)
        if isinstance(slots, int) and not isinstance(slots, bool) and not 1 <= slots <= _MOST_SLOTS:
            yield Problem(
                what=f"{host.name} has {slots} slots",
                where=_where(site, "cluster_slots", [host.name]),
                fix=f"Set cluster_slots to its number of GPUs, 1 to {_MOST_SLOTS}.",
            )
        port = host.values.get("cluster_ssh_port", 1)
        stated = "cluster_ssh_port" if "cluster_ssh_port" in host.set_names else "ansible_port"
        if isinstance(port, int) and not isinstance(port, bool) and not 1 <= port <= _MOST_PORT:
            yield Problem(
                what=f"the port of {host.name}'s sshd would be {port}",
                where=_where(site, stated, [host.name]),
                fix=f"Set ansible_port, or cluster_ssh_port, to its number, 1 to {_MOST_PORT}.",
            )
        if len(interface := str(host.values.get("cluster_interface", ""))) > _MOST_INTERFACE:
            yield Problem(
                what=f"'{interface}' of {host.name} is not an interface's name",
                where=_where(site, "cluster_interface", [host.name]),
                fix=f"A name has at most {_MOST_INTERFACE} characters; `ip -brief link` lists them.",
            )


def _data_disks(site: Site) -> Iterable[Problem]:
    by_answer: defaultdict[tuple[str, str, str], list[str]] = defaultdict(list)
    for host in site.hosts:
        stated = {name: str(host.values.get(name) or "") for name in _DISK_ANSWERS}
        for answer in _wrong_answers(stated):
            by_answer[answer].append(host.name)
    for (name, what, fix), hosts in by_answer.items():
        yield Problem(what=what, where=_where(site, name, hosts), fix=fix)


_DISK_ANSWERS = ("data_disk_adopt", "data_disk_device", "data_disk_serial")


def _wrong_answers(stated: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """The variable, what is wrong with it, and how to correct it."""
    adopt, device = stated["data_disk_adopt"], stated["data_disk_device"]
    given = [name for name, value in stated.items() if value]
    if len(given) > 1:
        said = " and ".join(f"{name} ({stated[name]})" for name in given)
        yield (
            given[0],
            f"{said} say which disk is the data disk",
            "Leave one of them: data_disk_adopt keeps all.",
        )
    elif device and device != NO_DISK and not device.startswith("/dev/"):
        yield (
            "data_disk_device",
            f"data_disk_device is '{device}'",
            f"Name a path in /dev, or {NO_DISK} for a site without a data disk.",
        )
    elif adopt.startswith("/") and not adopt.startswith("/dev/"):
        fix = f"Name a path in /dev, UUID= or LABEL=; to use the folder as it is, data_disk_device: {NO_DISK}"
        yield "data_disk_adopt", f"data_disk_adopt is the folder {adopt}", fix
    elif adopt.lower() in (NO_DISK, "uuid=", "label="):
        fix = "Name a path in /dev, UUID=... or LABEL=...; to adopt nothing, leave it out."
        yield "data_disk_adopt", f"data_disk_adopt is '{adopt}'", fix


def _logins(site: Site) -> Iterable[Problem]:
    for name in ("ansible_password", "ansible_ssh_pass", "ansible_ssh_password"):
        if users := [host.name for host in site.hosts if name in host.set_names and _ends_passwords(host)]:
            yield Problem(
                what=f"{', '.join(users)} would be reached with a password, which role sshd_policy turns off",
                where=_where(site, name, users),
                fix=f"Authorise a key there (ssh-copy-id) and set ansible_ssh_private_key_file, not {name}; "
                "or let passwords be: cluster_password_login: true.",
            )


def _ends_passwords(host: Host) -> bool:
    left = host.values.get(VARIABLE) or ()
    return host.values.get("cluster_password_login") is not True and "sshd_policy" not in left


def _replaced(site: Site) -> Iterable[Problem]:
    names = [host.name for host in site.hosts]
    listed = {name for host in site.hosts for name in host.values.get("ssh_trust_replaced_nodes", ())}
    for name in sorted(listed - set(names)):
        close = get_close_matches(name, names, 1)
        yield Problem(
            what=f"ssh_trust_replaced_nodes names {name}, which is not a machine of this site",
            where=_where(site, "ssh_trust_replaced_nodes", []),
            fix=f"Did you mean {close[0]}?" if close else f"Machines: {', '.join(names)}",
        )


def _key_sources(site: Site) -> Iterable[Problem]:
    hosts: defaultdict[str, list[str]] = defaultdict(list)
    for host in site.hosts:
        stated = host.values.get("ssh_trust_key_from", ())
        for source in stated if isinstance(stated, list | tuple) else ():
            hosts[str(source)].append(host.name)
    for source, names in hosts.items():
        if (wrong := bad_source(source)) is not None:
            yield Problem(
                what=f"ssh_trust_key_from lists {source!r}: {wrong.found}",
                where=_where(site, "ssh_trust_key_from", names),
                fix=wrong.fix,
            )


def _mesh(site: Site) -> Iterable[Problem]:
    nodes = [
        MeshNode(name=host.name, values=host.values, says_address="cluster_address" in host.set_names)
        for host in site.hosts
    ]
    for fault in mesh_faults(nodes):
        yield Problem(what=fault.what, where=_where(site, fault.variable, fault.hosts), fix=fault.fix)


_ARCHITECTURES = ("x86_64", "aarch64")


def _environments(site: Site) -> Iterable[Problem]:
    """One environment, whose name is its own, is on all nodes; `auto` is for sites that name no lock."""
    said = {str(host.values.get("cluster_environment_kind", "")) for host in site.hosts}
    if len(said) > 1:
        yield Problem(
            what=f"cluster_environment_kind differs between nodes: {', '.join(sorted(said))}",
            where=_where(site, "cluster_environment_kind", []),
            fix="Say it once for the site, in group_vars/all; nodes without a GPU run the others' kind, too.",
        )
    if said == {"auto"} and any("conda_env_wheel_lock" in host.set_names for host in site.hosts):
        yield Problem(
            what="conda_env_wheel_lock names a lock, and cluster_environment_kind: auto chooses one",
            where=_where(site, "conda_env_wheel_lock", []),
            fix="Say of which kind that lock is, cluster_environment_kind: cuda128, or leave the lock out.",
        )
    if "base" in {host.values.get("cluster_environment_name") for host in site.hosts}:
        yield Problem(
            what="cluster_environment_name is base, and conda calls its own root so",
            where=_where(site, "cluster_environment_name", []),
            fix="Name another one, as torch, which holds torch and the runtime alone.",
        )


def _machines(site: Site) -> Iterable[Problem]:
    """Each fault once, with the machines that it concerns."""
    hosts: defaultdict[tuple[str, str, str], list[str]] = defaultdict(list)
    for host in site.hosts:
        for fault in _faults_of(host, site.installers):
            hosts[fault].append(host.name)
    for (variable, what, fix), names in hosts.items():
        yield Problem(what=what, where=_where(site, variable, names), fix=fix)


def _faults_of(host: Host, installers: Mapping[str, Installer]) -> Iterator[tuple[str, str, str]]:
    text = {name: str(value) for name, value in host.values.items() if isinstance(value, str)}
    architecture = text.get("cluster_architecture", _ARCHITECTURES[0])
    if architecture not in _ARCHITECTURES:
        fix = f"Write {' or '.join(_ARCHITECTURES)}, as `uname -m` says on the nodes."
        yield "cluster_architecture", f"cluster_architecture is {architecture!r}", fix
        return
    source, sha256 = text.get("miniconda_installer_source", ""), text.get("miniconda_installer_sha256", "")
    if fault := installer_fault(source, sha256, architecture=architecture, known=installers):
        yield "miniconda_installer_source", *fault
    yield from _driver_faults(host, text)


def _driver_faults(host: Host, text: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    wanted, key = text.get("nvidia_driver_version", ""), text.get("nvidia_driver_apt_key", "")
    if wanted and version_of(wanted) is None:
        fix = "Write a branch (580) or a whole version (580.95.05), in quotes."
        yield "nvidia_driver_version", f"nvidia_driver_version is {wanted!r}, which is no version", fix
        return
    if text.get("nvidia_driver_apt_source") and not key.strip():
        fix = "Set nvidia_driver_apt_key to the public key that signs the repository."
        yield "nvidia_driver_apt_source", "nvidia_driver_apt_key is empty", fix
    cuda, minimum = text.get("nvidia_gpu_cuda", ""), host.values.get("nvidia_gpu_minimum_drivers")
    least = str(minimum.get(cuda, "")) if isinstance(minimum, Mapping) else ""
    if wanted and (version_of(wanted) or ()) < (version_of(least) or ()):
        what = f"nvidia_driver_version is {wanted}, and CUDA {cuda} (nvidia_gpu_cuda) needs {least} or newer"
        yield "nvidia_driver_version", what, "Take a newer driver, or locks for an older CUDA."


def _where(site: Site, word: str, hosts: Sequence[str]) -> str:
    """The first lines of the site's files that hold the word, else the machines that it concerns."""
    places = [
        f"{path}:{number}" for path, text in site.texts.items() for number, _ in _lines_with(text, word)
    ]
    return ", ".join(places[:4]) or ", ".join(hosts) or "command line"


def _lines_with(text: str, word: str) -> list[tuple[int, str]]:
    pattern = re.compile(rf"(?<![\w.:-]){re.escape(word)}(?![\w.-])")
    lines = enumerate(text.splitlines(), start=1)
    return [(number, line) for number, line in lines if pattern.search(line.partition("#")[0])]


def duplicate_keys(text: str) -> list[tuple[str, list[int]]]:
    """Each repeated key with its lines, counted from 1; nothing for a text that is not YAML."""
    try:
        root = yaml.compose(text)
    except (yaml.YAMLError, RecursionError):
        return []
    return [found for mapping in _mappings(root) for found in _repeated(mapping)]


def _mappings(root: yaml.Node | None) -> Iterator[yaml.MappingNode]:
    """Each once, as they are written: by an alias a node is met again, and may hold itself."""
    waiting, met = [root], set[int]()
    while waiting:
        node = waiting.pop()
        if id(node) in met:
            continue
        met.add(id(node))
        if isinstance(node, yaml.MappingNode):
            yield node
            waiting += [value for _, value in reversed(node.value)]
        elif isinstance(node, yaml.SequenceNode):
            waiting += reversed(node.value)


def _repeated(mapping: yaml.MappingNode) -> Iterator[tuple[str, list[int]]]:
    lines: defaultdict[str, list[int]] = defaultdict(list)
    for key, _ in mapping.value:
        lines[str(key.value)].append(key.start_mark.line + 1)
    return ((key, numbers) for key, numbers in lines.items() if len(numbers) > 1)
