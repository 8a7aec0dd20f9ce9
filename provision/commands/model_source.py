"""Where a model comes from: a folder of this machine, or a hub."""

from __future__ import annotations

from pathlib import Path

from provision.edges.terminal import Console
from provision.errors import BadInput
from provision.store import hub
from provision.store.source import FolderSource, folder_source

# What a hub's client, git and editors leave beside a model's files.
_LEFT_OUT = (".cache", ".git", ".huggingface")


def source_of(model: str, revision: str, *, token: str, cache: Path, progress: Console) -> FolderSource:
    """A folder of this machine, or what a hub has, fetched into the cache.

    Args:
        model: the folder, or OWNER/NAME of a hub.
        token: for the hub, or "".

    Raises:
        BadInput: it is neither.
    """
    if Path(model).is_dir():
        with progress.status(f"reading {model}"):
            return folder_source(Path(model), "model", leave_out=_LEFT_OUT)
    if not hub.is_repository(model):
        found = "there is no such folder, and it is no repository of a hub"
        raise BadInput(f"fetch {model}", found=found, fix="Name a folder, or a repository as OWNER/NAME.")
    with progress.status(f"fetching {model}") as status:
        snapshot = hub.fetched(
            model,
            revision,
            cache,
            token=token,
            on_try=lambda number: status.update(f"fetching {model}, try {number} of {hub.TRIES}"),
        )
        status.update(f"reading {model}")
        source = folder_source(snapshot.folder, "model", leave_out=_LEFT_OUT)
    hub.refuse_changed(snapshot, source.manifest, model)
    return source
