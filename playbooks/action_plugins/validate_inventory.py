"""Collects a site's inventory on the controller and fails with every problem at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase

from provision.core.inventory import Host, Problem, Site, problems
from provision.core.inventory_variables import Option, sources_and_locks
from provision.edges.http import unreachable

# Values that are checked even where only the role's default sets them.
CHECKED = ("cluster_address", "cluster_slots", "cluster_interface")
CHECKED_ENDINGS = ("_source", "_sha256", "_lock")
TEXT_BYTES = 1 << 20


class ActionModule(ActionBase):
    """Arguments: `roles` (their folder), `check_sources` (ask the addresses), `timeout_seconds`."""

    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        options, defaults = self._options_and_defaults(Path(self._task.args["roles"]))
        site = self._site(variables, options, defaults)
        found = [*problems(site), *self._missing(site)]
        if found:
            listed = "\n".join(f"  {number}. {problem}" for number, problem in enumerate(found, start=1))
            return {
                **result,
                "failed": True,
                "msg": f"{len(found)} problem(s), no node was touched:\n{listed}",
            }
        nodes = ", ".join(f"{host.name} ({host.values['cluster_address']})" for host in site.hosts)
        return {**result, "changed": False, "msg": f"{len(site.hosts)} nodes: {nodes}"}

    def _options_and_defaults(self, roles: Path) -> tuple[dict[str, Option], dict[str, Any]]:
        options: dict[str, Option] = {}
        defaults: dict[str, Any] = {}
        for spec in sorted(roles.glob("*/meta/argument_specs.yml")):
            role = spec.parts[-3]
            (entry,) = self._load(spec)["argument_specs"].values()
            taken = entry.get("options", {})
            for name, option in taken.items():
                options[name] = Option(name=name, role=role, type=option["type"])
            if (path := roles / role / "defaults" / "main.yml").exists():
                defaults.update(self._load(path) or {})
        return options, defaults

    def _load(self, path: Path) -> dict[str, Any]:
        loaded: dict[str, Any] = self._loader.load_from_file(str(path), trusted_as_template=True)
        return loaded

    def _site(
        self, variables: Mapping[str, Any], options: Mapping[str, Option], defaults: Mapping[str, Any]
    ) -> Site:
        groups = variables.get("groups", {})
        hosts = [self._host(name, variables, options, defaults) for name in groups.get("cluster", [])]
        texts = dict(_texts(variables.get("ansible_inventory_sources") or []))
        roles = frozenset(path.name for path in Path(self._task.args["roles"]).iterdir() if path.is_dir())
        return Site(hosts=hosts, groups=frozenset(groups), roles=roles, options=options, texts=texts)

    def _host(
        self,
        name: str,
        variables: Mapping[str, Any],
        options: Mapping[str, Option],
        defaults: Mapping[str, Any],
    ) -> Host:
        own = variables["hostvars"].raw_get(name)
        templar = self._templar.copy_with_new_env(available_variables={**variables, **defaults, **own})
        wanted = {
            option
            for option in options
            if option in own or option in CHECKED or option.endswith(CHECKED_ENDINGS)
        }
        values = {}
        for option in sorted(wanted):
            try:
                values[option] = templar.template(own.get(option, defaults.get(option)))
            except AnsibleError as e:
                raise AnsibleError(f"{name}: the value of {option} cannot be worked out: {e}") from e
        return Host(name=str(name), set_names=frozenset(map(str, own)), values=values)

    def _missing(self, site: Site) -> Iterator[Problem]:
        sources, locks = sources_and_locks([host.values for host in site.hosts])
        for name, path in locks:
            if not Path(path).is_file():
                fix = "Correct it, or write the lock: provision env lock."
                yield Problem(what=f"there is no file {path}", where=name, fix=fix)
        if not self._task.args.get("check_sources", True):
            return
        asked = {_asked(name, address, site): (name, address) for name, address in sources}
        timeout_seconds = float(self._task.args.get("timeout_seconds", 5))
        for address, reason in unreachable(list(asked), timeout_seconds=timeout_seconds).items():
            fix = (
                "Correct it, or skip this check with -e validate_sources=false where only the nodes reach it."
            )
            yield Problem(what=f"{address} does not answer: {reason}", where=asked[address][0], fix=fix)


def _asked(name: str, address: str, site: Site) -> str:
    """A repository's folder need not answer, so that the file that apt reads first is asked for."""
    if name != "base_packages_apt_source":
        return address
    suite = str(site.hosts[0].values.get("base_packages_apt_suite", "./"))
    folder = suite.removeprefix("./") if suite.endswith("/") else f"dists/{suite}/"
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
