"""Tells on the controller whether its key signed what a machine says of the image that it was made from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

from provision.errors import ProvisionError
from provision.images import manifest
from provision.images.files import refuse_foreign


class ActionModule(ActionBase):
    """Returns `problem`, empty where the text is signed. `text`: of image.json; `key`: the controller's."""

    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        where = "/etc/clusterwright/image.json"
        try:
            image, signature = manifest.parse(self._task.args["text"], where=where)
            refuse_foreign(image, signature, Path(self._task.args["key"]), where=where)
        except ProvisionError as e:
            return {**result, "changed": False, "problem": str(e)}
        return {**result, "changed": False, "problem": ""}
