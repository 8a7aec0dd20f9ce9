"""Goes on only where this run holds the cluster: the callback cluster_record has just tried to take it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

from provision.edges import cluster_lock


class ActionModule(ActionBase):
    """Argument: `secrets`, the folder of the cluster's secrets. A run in check mode need not hold it."""

    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        secrets = Path(self._task.args["secrets"])
        if self._task.check_mode:
            return {**result, "changed": False}
        found = cluster_lock.holder(secrets)
        if cluster_lock.is_ours(found):
            return {**result, "changed": False, "msg": f"this run holds {secrets}"}
        if found is None:
            why = "the callback cluster_record is not enabled, which holds it. Run in the checkout."
            return {**result, "failed": True, "msg": f"cannot hold the cluster of {secrets}: {why}"}
        return {**result, "failed": True, "msg": f"{cluster_lock.busy(secrets, found)} No node was touched."}
