"""Holds the cluster for a run, and remembers each node's last failure beside the cluster's secrets."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible import context
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.callback import CallbackBase
from ansible.template import Templar

from provision.core import node_record
from provision.edges import cluster_lock
from provision.edges.files import write_file
from provision.errors import Busy

DOCUMENTATION = r"""
name: cluster_record
type: aggregate
short_description: Hold the cluster for a run, and remember each node's last failure
description:
  - Callbacks live in the process of ansible-playbook itself, so that its lock ends with it, however it ends.
  - C(hold_cluster) refuses to go on where this one could not take the lock.
author: Clusterwright
"""


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "cluster_record"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._playbook = ""
        self._play: Any = None
        self._secrets: Path | None = None

    def v2_playbook_on_start(self, playbook: Any) -> None:
        self._playbook = Path(playbook._file_name).name

    def v2_playbook_on_play_start(self, play: Any) -> None:
        self._play = play

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        if task.action == "hold_cluster" and self._secrets is None and not context.CLIARGS.get("check"):
            self._secrets = secrets_of(self._play)
            self._hold()

    def _hold(self) -> None:
        """The descriptor is left open on purpose: the lock is held until this process ends."""
        if self._secrets is None or cluster_lock.is_ours(cluster_lock.holder(self._secrets)):
            return
        try:
            cluster_lock.take(self._secrets, self._playbook)
        except Busy:  # the task that follows says by whom
            self._secrets = None

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
            said=node_record.said(values),
        )
        node = result.host.get_name()
        if node in self._nodes():
            self._write(node_record.failed(self._read(), node, failure))

    def _nodes(self) -> set[str]:
        group = self._play.get_variable_manager()._inventory.groups.get("cluster")
        return {host.get_name() for host in group.get_hosts()} if group else set()

    def v2_playbook_on_stats(self, stats: Any) -> None:
        if self._secrets is None:
            return
        nodes = self._nodes() & set(stats.processed)
        bad = {node for node in nodes if stats.dark.get(node) or stats.failures.get(node)}
        whole = set(context.CLIARGS.get("tags") or ["all"]) == {"all"}
        tells = self._playbook == "members.yml" or (self._playbook == "site.yml" and whole)
        run = {"playbook": self._playbook, "tells": tells, "now": now()}
        self._write(node_record.ran(self._read(), good=nodes - bad, bad=bad, **run))

    def _read(self) -> dict[str, node_record.Record]:
        path = self._path()
        return node_record.parse(path.read_text() if path and path.is_file() else "")

    def _write(self, records: node_record.Records) -> None:
        path = self._path()
        if path is not None:
            write_file(path, node_record.render(records), mode=0o600)

    def _path(self) -> Path | None:
        return self._secrets / "nodes.json" if self._secrets is not None else None


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def secrets_of(play: Any) -> Path | None:
    """The folder of the cluster's secrets, as its first node's variables have it."""
    manager = play.get_variable_manager()
    group = manager._inventory.groups.get("cluster")
    hosts = group.get_hosts() if group else []
    if not hosts:
        return None
    variables = manager.get_vars(play=play, host=hosts[0])
    wanted = variables.get("ssh_trust_secrets_path", f"{variables['inventory_dir']}/secrets")
    return Path(str(Templar(loader=DataLoader(), variables=variables).template(wanted)))
