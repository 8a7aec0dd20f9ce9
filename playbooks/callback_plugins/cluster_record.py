"""Remembers each node's last failure beside the cluster's secrets, in a run that holds the cluster."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible import context
from ansible.plugins.callback import CallbackBase

from provision.edges.files import write_file
from provision.nodes import node_record
from provision.roles.proxy import hidden
from provision.roles.run_start import THIS_RUN

DOCUMENTATION = r"""
name: cluster_record
type: aggregate
short_description: Remember each node's last failure
description:
  - Only in a run that holds the cluster, see C(before_any_node).
author: Clusterwright
"""


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "cluster_record"

    def __init__(self) -> None:
        super().__init__()
        self._playbook = ""
        self._play: Any = None

    def v2_playbook_on_start(self, playbook: Any) -> None:
        self._playbook = Path(playbook._file_name).name

    def v2_playbook_on_play_start(self, play: Any) -> None:
        self._play = play

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        if not ignore_errors:
            self._note(result, result.result)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        """A task without a log hides even this."""
        hidden = "censored" in result.result
        self._note(result, {"msg": "it did not answer over ssh"} if hidden else result.result)

    def _note(self, result: Any, values: Mapping[str, Any]) -> None:
        role = result.task._role.get_name() if result.task._role else ""
        failure = node_record.Failure(
            when=now(),
            playbook=self._playbook,
            role=role,
            task=result.task.name,
            said=hidden(node_record.said(values), THIS_RUN.unprinted),
        )
        node = result.host.get_name()
        if node in self._nodes():
            self._write(node_record.failed(self._read(), node, failure))

    def _nodes(self) -> set[str]:
        group = self._play.get_variable_manager()._inventory.groups.get("cluster")
        return {host.get_name() for host in group.get_hosts()} if group else set()

    def v2_playbook_on_stats(self, stats: Any) -> None:
        if THIS_RUN.secrets is None:
            return
        nodes = self._nodes() & set(stats.processed)
        bad = {node for node in nodes if stats.dark.get(node) or stats.failures.get(node)}
        whole = set(context.CLIARGS.get("tags") or ["all"]) == {"all"}
        tells = self._playbook == "members.yml" or (self._playbook == "site.yml" and whole)
        records = node_record.ran(
            self._read(), playbook=self._playbook, tells=tells, good=nodes - bad, bad=bad, now=now()
        )
        self._write(records)

    def _read(self) -> dict[str, node_record.Record]:
        path = self._path()
        return node_record.parse(path.read_text() if path and path.is_file() else "")

    def _write(self, records: node_record.Records) -> None:
        path = self._path()
        if path is not None:
            write_file(path, node_record.render(records), mode=0o600)

    def _path(self) -> Path | None:
        return THIS_RUN.secrets / "nodes.json" if THIS_RUN.secrets else None


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
