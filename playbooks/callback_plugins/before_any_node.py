"""Holds the cluster when a run starts, and ends it with every problem of the site's inventory at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ansible import context
from ansible.errors import AnsibleError
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.callback import CallbackBase
from ansible.template import Templar
from ansible.vars.hostvars import HostVars

from provision.bundle.contents import MANIFEST
from provision.bundle.trust import apt_key, other_locks
from provision.edges import cluster_lock
from provision.edges.fetch import unreachable
from provision.environments.locks import how_to_have
from provision.errors import BadInput, ProvisionError
from provision.inventory.as_ansible import PLAYBOOKS, secrets_folder
from provision.inventory.left_roles import VARIABLE, left_roles, taken
from provision.inventory.problems import Host, Problem, Site, problems
from provision.inventory.variables import Option, installers_in, sources_and_locks
from provision.roles.proxy import direct_hosts, is_direct, secrets_of
from provision.roles.run_start import THIS_RUN

DOCUMENTATION = r"""
name: before_any_node
type: aggregate
short_description: Hold the cluster and check the inventory when a run starts
description:
  - A play asks for it with the variable C(before_any_node), see hold.yml and validate.yml.
  - A task would be left out by C(--limit), C(--skip-tags) or C(--start-at-task); the start of a run is not.
  - Callbacks live in the process of ansible-playbook itself, so that its lock ends with it, however it ends.
author: Clusterwright
"""

# Values that are checked even where only the role's default sets them.
CHECKED = (
    *("cluster_address", "cluster_slots", "cluster_interface", "cluster_architecture", "cluster_ssh_port"),
    *(VARIABLE, "cluster_proxy", "cluster_no_proxy", "cluster_environment_kind"),
    *("cluster_bundle_url", "cluster_bundle_path"),
    *("nvidia_gpu_cuda", "nvidia_gpu_minimum_drivers"),
)
CHECKED_ROLES = ("wireguard_mesh", "nvidia_driver")
INSTALLERS = PLAYBOOKS.parent / "envs" / "miniconda_installers.tsv"
CHECKED_ENDINGS = ("_source", "_sha256", "_lock")
TEXT_BYTES = 1 << 20
ROLES = PLAYBOOKS / "roles"
ANSWER_SECONDS = 5.0
REFUSED = 2  # as where a task fails


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "before_any_node"

    def v2_playbook_on_start(self, playbook: Any) -> None:
        """Ansible only warns of an exception in a callback, so that the process ends itself."""
        steps: Mapping[str, Callable[[Any], None]] = {"hold": self._hold, "validate": self._validate}
        self._playbook = Path(playbook._file_name).name
        try:
            for play in playbook.get_plays():
                if name := play.vars.get("before_any_node"):
                    manager = play.get_variable_manager()
                    manager._loader.set_basedir(
                        str(PLAYBOOKS)
                    )  # as for the play itself: playbook_dir, group_vars
                    nodes = _variables_of_nodes(manager)
                    THIS_RUN.unprinted = _unprinted(manager, nodes)
                    _leave(manager, nodes)
                    steps[name](manager)
                    THIS_RUN.done.add(name)
        except (ProvisionError, AnsibleError) as e:
            said = e.message if isinstance(e, AnsibleError) else str(e)
            self._display.error(f"No node was touched. {said}", wrap_text=False)
            raise SystemExit(REFUSED) from e

    def _hold(self, manager: Any) -> None:
        """A run in check mode need not hold the cluster."""
        secrets = secrets_folder(manager)
        if secrets is None or context.CLIARGS.get("check"):
            return
        if not cluster_lock.is_ours(cluster_lock.holder(secrets)):
            cluster_lock.take(secrets, self._playbook)
        THIS_RUN.secrets = secrets

    def _validate(self, manager: Any) -> None:
        checked = Inventory(manager)
        if found := checked.problems():
            listed = "\n".join(f"  {number}. {problem}" for number, problem in enumerate(found, start=1))
            raise AnsibleError(f"{len(found)} problem(s) of the inventory:\n{listed}")
        nodes = ", ".join(f"{host.name} ({host.values['cluster_address']})" for host in checked.site.hosts)
        self._display.v(f"{len(checked.site.hosts)} nodes: {nodes}")


class Inventory:
    """A site as its variables describe it."""

    def __init__(self, manager: Any) -> None:
        self._loader: DataLoader = manager._loader
        self._hostvars = HostVars(manager._inventory, manager, manager._loader)
        localhost = manager._inventory.get_host("localhost")
        self._variables: dict[str, Any] = manager.get_vars(host=localhost)
        # What the roles' defaults are made of.
        self._vocabulary = self._load(ROLES / "cluster" / "vars" / "main.yml")
        self.site = self._site()

    def problems(self) -> list[Problem]:
        return [*problems(self.site), *self._missing()]

    def _options_and_defaults(self) -> tuple[dict[str, Option], dict[str, Any]]:
        options: dict[str, Option] = {}
        defaults: dict[str, Any] = {}
        for spec in sorted(ROLES.glob("*/meta/argument_specs.yml")):
            role = spec.parts[-3]
            (entry,) = self._load(spec)["argument_specs"].values()
            taken = entry.get("options", {})
            for name, option in taken.items():
                options[name] = Option(name=name, role=role, type=option["type"])
            if (path := ROLES / role / "defaults" / "main.yml").exists():
                defaults.update(self._load(path) or {})
        return options, defaults

    def _load(self, path: Path) -> dict[str, Any]:
        loaded: dict[str, Any] = self._loader.load_from_file(str(path), trusted_as_template=True)
        return loaded

    def _site(self) -> Site:
        options, defaults = self._options_and_defaults()
        groups = self._variables.get("groups", {})
        hosts = [self._host(name, options, defaults) for name in groups.get("cluster", [])]
        texts = dict(_texts(self._variables.get("ansible_inventory_sources") or []))
        return Site(
            hosts=hosts,
            groups=frozenset(groups),
            roles=_roles(),
            options=options,
            texts=texts,
            installers=installers_in(INSTALLERS.read_text()),
        )

    def _host(self, name: str, options: Mapping[str, Option], defaults: Mapping[str, Any]) -> Host:
        own = self._hostvars.raw_get(name)
        known = {**self._variables, **defaults, **own, **self._vocabulary}
        templar = Templar(loader=self._loader, variables=known)
        wanted = {
            option
            for option in options
            if option in own
            or option in CHECKED
            or options[option].role in CHECKED_ROLES
            or option.endswith(CHECKED_ENDINGS)
        }
        values = {}
        for option in sorted(wanted):
            try:
                values[option] = templar.template(own.get(option, defaults.get(option)))
            except AnsibleError as e:
                raise AnsibleError(f"{name}: the value of {option} cannot be worked out: {e}") from e
        return Host(name=str(name), set_names=frozenset(map(str, own)), values=values)

    def _missing(self) -> Iterator[Problem]:
        read = [taken(host.values, self.site.options, self.site.roles) for host in self.site.hosts]
        sources, locks = sources_and_locks(read)
        for name, path in locks:
            if not Path(path).is_file():
                yield Problem(what=f"there is no file {path}", where=name, fix=how_to_have(Path(path)))
        first = self.site.hosts[0].values if self.site.hosts else {}
        if bundle := str(first.get("cluster_bundle_url") or ""):
            folder = str(first.get("cluster_bundle_path") or "")
            yield from _wrong_bundle(bundle, folder, [path for _, path in locks])
            sources = [("cluster_bundle_url", f"{bundle}/{MANIFEST}")]
        if not self._asks_sources():
            return
        asked = {_asked(name, address, self.site): (name, address) for name, address in sources}
        proxy = str(first.get("cluster_proxy") or "")
        direct = [address for address in asked if not proxy or is_direct(address, self._direct(first))]
        reasons = unreachable(direct, timeout_seconds=ANSWER_SECONDS)
        through = [address for address in asked if address not in direct]
        reasons |= unreachable(through, timeout_seconds=ANSWER_SECONDS, proxy=proxy)
        for address, reason in reasons.items():
            fix = (
                "Correct it, or skip this check with -e validate_sources=false where only the nodes reach it."
            )
            yield Problem(what=f"{address} does not answer: {reason}", where=asked[address][0], fix=fix)

    def _direct(self, first: Mapping[str, Any]) -> list[str]:
        known = [
            word for host in self.site.hosts for word in (host.name, str(host.values["cluster_address"]))
        ]
        bundle = urlsplit(str(first.get("cluster_bundle_url") or "")).hostname
        return direct_hosts(known, [*(first.get("cluster_no_proxy") or []), *([bundle] if bundle else [])])

    def _asks_sources(self) -> bool:
        wanted = Templar(loader=self._loader, variables=self._variables).template(
            self._variables.get("validate_sources", True)
        )
        return bool(boolean(wanted))


def _wrong_bundle(address: str, folder: str, locks: Sequence[str]) -> Iterator[Problem]:
    try:
        apt_key(folder, address)
        for lock in other_locks(folder, locks):
            fix = "Make it for the site as it is, provision bundle create, or take its locks (envs/ in it)."
            yield Problem(
                what=f"the bundle was made for another {lock}", where="cluster_bundle_path", fix=fix
            )
    except BadInput as e:
        yield Problem(what=e.found, where="cluster_bundle_url", fix=e.fix)


def _roles() -> frozenset[str]:
    return frozenset(path.name for path in ROLES.iterdir() if path.is_dir())


def _leave(manager: Any, nodes: list[dict[str, Any]]) -> None:
    """Takes the nodes out of the groups of roles that the site leaves, for this run."""
    inventory = manager._inventory
    for name, role in _left(manager, nodes):
        group, host = inventory.groups[role], inventory.get_host(name)
        members = [member for member in group.get_hosts() if member != host]
        for child in list(group.child_groups):
            group.child_groups.remove(child)
            child.parent_groups.remove(group)
        group.hosts = members
        group.clear_hosts_cache()
        host.remove_group(group)
    inventory._inventory._groups_dict_cache = {}
    inventory.clear_caches()


def _unprinted(manager: Any, nodes: list[dict[str, Any]]) -> list[str]:
    """The password of each node's proxy; a value that cannot be worked out is validate.yml's to say."""
    found: set[str] = set()
    for own in nodes:
        stated = Templar(loader=manager._loader, variables=own).template(own.get("cluster_proxy", ""))
        found |= set(secrets_of(str(stated)))
    return sorted(found, key=len, reverse=True)


def _variables_of_nodes(manager: Any) -> list[dict[str, Any]]:
    inventory = manager._inventory
    values = HostVars(inventory, manager, manager._loader)
    hosts = inventory.groups["cluster"].get_hosts() if "cluster" in inventory.groups else []
    return [values.raw_get(host.name) for host in hosts]


def _left(manager: Any, nodes: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Node and role, as the variables of each node say; what is wrong with these is validate.yml's to say."""
    inventory = manager._inventory
    found = []
    for own in nodes:
        host = inventory.get_host(own["inventory_hostname"])
        stated = Templar(loader=manager._loader, variables=own).template(own.get(VARIABLE, []))
        roles = left_roles({VARIABLE: stated}, _roles() & set(inventory.groups))
        found += [(host.name, role) for role in roles if host in inventory.groups[role].get_hosts()]
    return found


def _asked(name: str, address: str, site: Site) -> str:
    """A repository's folder need not answer, so that the file that apt reads first is asked for."""
    if not name.endswith("_apt_source"):
        return address
    suite = str(site.hosts[0].values.get(name.replace("_source", "_suite"), "./"))
    folder = suite.removeprefix("./").removeprefix("/") if suite.endswith("/") else f"dists/{suite}/"
    return f"{address.rstrip('/')}/{folder}Release"


def _texts(sources: list[str]) -> Iterator[tuple[str, str]]:
    """The texts of the inventory's files, by a path that a person can open from here."""
    for source in map(Path, sources):
        folder = source if source.is_dir() else source.parent
        for path in sorted(folder.rglob("*")):
            inside = path.relative_to(folder)
            if path.is_file() and "secrets" not in inside.parts and path.stat().st_size < TEXT_BYTES:
                yield _shown(path), path.read_text(encoding="utf-8", errors="replace")


def _shown(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
