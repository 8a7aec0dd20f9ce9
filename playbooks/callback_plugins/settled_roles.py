"""Keeps what the look at the start of site.yml said of each node, and forgets all with the first change."""

from __future__ import annotations

from typing import Any

from ansible.plugins.callback import CallbackBase

from provision.roles.settled import THIS_RUN

DOCUMENTATION = r"""
name: settled_roles
type: aggregate
short_description: Keep which roles would change nothing, until anything changes
description:
  - The action C(look) says it of each node; roles ask with the filter C(are_settled) and end there.
  - Whatever was not loaded here keeps nothing, and every role runs as a whole.
author: Clusterwright
"""


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "settled_roles"

    def v2_runner_on_ok(self, result: Any) -> None:
        changed = bool(result.result.get("changed"))
        THIS_RUN.after(result.task.action, changed=changed, failed=False)
        if result.task.action == "look":
            THIS_RUN.keep(result.host.get_name(), result.result["settled"])

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        THIS_RUN.after(result.task.action, changed=False, failed=True)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        THIS_RUN.after(result.task.action, changed=False, failed=True)
