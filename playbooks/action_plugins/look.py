"""Looks at a node once for all roles, and says which of them would change nothing there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible.template import Templar

VOCABULARY = "cluster"


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """A role as its tasks would see it: variables by name, and what works them out."""

    name: str
    templar: Any
    values: Mapping[str, Any]

    def worked_out(self, ending: str) -> Any:
        """The value of its variable with this ending.

        Raises:
            AnsibleError: it cannot be worked out here, or there is none.
        """
        name = f"{self.name}_{ending}"
        if name not in self.values:
            raise AnsibleError(f"role {self.name} has no variable {name}")
        return self.templar.template(self.values[name])


class ActionModule(ActionBase):
    """Returns `settled`, the roles that would change nothing, and `reasons` why others could not be told.

    `roles`: each has the variables NAME_observes, what its first task observes, and NAME_settled, whether it
    ends there, worked out from NAME_observed. Roles are left out whose group the node is not in.
    `where`: nothing is observed, and no role settled, on a node that lacks this path.
    """

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        names = [name for name in self._task.args["roles"] if name in variables["group_names"]]
        asked, reasons = self._worked_out(names, "observes", variables)
        seen = self._observed(asked, variables)
        observed = {f"{name}_observed": answer for name, answer in seen.items()}
        verdicts, untold = self._worked_out(list(seen), "settled", {**variables, **observed})
        settled = [name for name, verdict in verdicts.items() if verdict is True]
        return {**result, "changed": False, "settled": settled, "reasons": {**reasons, **untold}}

    def _worked_out(
        self, names: Sequence[str], ending: str, variables: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, str]]:
        """By role the value of its variable with this ending, and why others have none."""
        values, reasons = {}, {}
        for name in names:
            try:
                values[name] = self._role(name, variables).worked_out(ending)
            except AnsibleError as e:
                reasons[name] = str(e)
        return values, reasons

    def _observed(self, asked: Mapping[str, Any], variables: Mapping[str, Any]) -> dict[str, Any]:
        """What each role's first task would register."""
        arguments = {"parts": asked, "where": self._task.args["where"]}
        answer = self._execute_module("observe", arguments, task_vars=variables)
        seen: dict[str, Any] = {} if answer.get("failed") else answer["parts"]
        return seen

    def _role(self, name: str, variables: Mapping[str, Any]) -> Role:
        """With Ansible's precedence, since no inventory sets what a role works out in vars (validate.yml)."""
        folder = Path(variables["playbook_dir"]) / "roles" / name
        values = {
            **self._loaded(folder.parent / VOCABULARY / "defaults"),
            **self._loaded(folder / "defaults"),
            **self._loaded(folder.parent / VOCABULARY / "vars"),
            **self._loaded(folder / "vars"),
            **variables,
            "role_path": str(folder),
            "ansible_search_path": [str(folder), variables["playbook_dir"]],
        }
        return Role(name=name, templar=Templar(loader=self._loader, variables=values), values=values)

    def _loaded(self, folder: Path) -> dict[str, Any]:
        path = folder / "main.yml"
        if not path.is_file():
            return {}
        # As the loader has it, which would be copied; nothing of it is changed here.
        found: dict[str, Any] | None = self._loader.load_from_file(
            str(path), unsafe=True, trusted_as_template=True
        )
        return found or {}
