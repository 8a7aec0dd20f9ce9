"""Loads in ansible-playbook itself what each of the processes that it forks would load anew."""

from __future__ import annotations

from typing import Any

import ansible.executor.module_common  # noqa: F401 - builds what is sent to a node
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.callback import CallbackBase
from ansible.plugins.loader import (
    action_loader,
    become_loader,
    connection_loader,
    lookup_loader,
    shell_loader,
)
from ansible.template import Templar, trust_as_template

DOCUMENTATION = r"""
name: before_forks
type: aggregate
short_description: Load once what every task needs
description:
  - Ansible forks a process for each task of each node. One that has to load the filters and tests of
    templates spends four fifths of its time on that (docs/measurements.md).
author: Clusterwright
"""

LOADED = (
    (connection_loader, ("ssh", "local")),
    (shell_loader, ("sh",)),
    (become_loader, ("sudo",)),
    (lookup_loader, ("file",)),
    (action_loader, ("normal", "command", "raw", "assert", "debug", "set_fact", "look", "prove_key")),
)


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "before_forks"

    def v2_playbook_on_start(self, playbook: Any) -> None:
        for loader, names in LOADED:
            for name in names:
                loader.get(name, class_only=True)
        Templar(loader=DataLoader()).template(trust_as_template("{{ [] is defined and [] | length == 0 }}"))
