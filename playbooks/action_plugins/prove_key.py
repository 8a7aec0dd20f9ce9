"""Tries from the controller whether its key alone opens a node, in one fresh connection."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from ansible.plugins.action import ActionBase

from provision.edges import process
from provision.errors import ProvisionError
from provision.roles.ssh_trust.key_login import Way, complaint, copy_command, key_login, opened_by

WITHOUT_SSH = ("local",)


class ActionModule(ActionBase):
    """Tries it, and says which key it was.

    Returns `refused`, why the key opened nothing, empty where it did; `fix`, what puts it, or then another
    one, there; and `way` of `opened_by`, as the module write_files takes it.
    """

    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        if self._connection.transport in WITHOUT_SSH:
            return {**result, "changed": False, "refused": "", "fix": "", "way": {}}
        way = self._way()
        return {**result, "changed": False, **_tried(way)}

    def _way(self) -> Way:
        arguments = ("ssh_args", "ssh_common_args", "ssh_extra_args")
        return Way(
            address=self._option("host") or str(self._play_context.remote_addr),
            user=self._option("remote_user"),
            port=self._option("port"),
            key_file=os.path.expanduser(self._option("private_key_file")),
            arguments=" ".join(self._option(name) for name in arguments),
            program=self._option("ssh_executable") or "ssh",
            timeout_seconds=int(self._option("timeout") or 10),
        )

    def _option(self, name: str) -> str:
        try:
            value = self._connection.get_option(name)
        except KeyError:  # another connection plugin than ssh lacks some
            return ""
        return "" if value is None else str(value)


def _tried(way: Way) -> dict[str, Any]:
    environment = {**os.environ, "SSH_ASKPASS_REQUIRE": "never"}
    try:
        finished = process.run(
            key_login(way), timeout_seconds=3 * way.timeout_seconds, env=environment, check=False
        )
    except ProvisionError as e:
        return _refused(way, complaint(e.found))
    if finished.returncode != 0:
        return _refused(way, complaint(finished.stderr) or f"ssh ended with {finished.returncode}")
    another = copy_command(replace(way, key_file=""))
    return {"refused": "", "fix": another, "way": opened_by(finished.stdout, finished.stderr)}


def _refused(way: Way, said: str) -> dict[str, Any]:
    return {"refused": said, "fix": copy_command(way), "way": {"unknown": said}}
