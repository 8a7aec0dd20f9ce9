"""Builds this project's wheel on the controller, once for each state of its sources."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

from provision.commands.folders import user_cache
from provision.environments import runtime_wheel
from provision.errors import ProvisionError


class ActionModule(ActionBase):
    """Returns `wheel`: path, sha256 and content. `source`: the checkout to build."""

    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        try:
            made = runtime_wheel.build(
                Path(self._task.args["source"]), cache=user_cache() / "wheel", environment=os.environ
            )
        except ProvisionError as e:
            return {**result, "failed": True, "msg": str(e)}
        described = {"path": str(made.path), "sha256": made.sha256, "content": made.content}
        return {**result, "changed": False, "wheel": described}
