"""A checkpoint's list of shards, `.metadata`: JSON since format 2; torch's pickle in 1 is read, too."""

from __future__ import annotations

from pathlib import Path

from runtime.train.checkpoint.manifest import Manifest
from runtime.train.checkpoint.table import Table, check, from_json, limit_for
from runtime.train.checkpoint.torch_metadata import from_pickle
from runtime.untrusted.files import read_plain

METADATA = ".metadata"
_JSON = b"{"


def read_table(folder: Path, manifest: Manifest) -> Table:
    """Which tensor is where; of checkpoints of format 1 and of torch's own saver as well.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged, or does not fit the files that the manifest lists.
    """
    if METADATA not in manifest.files:
        raise ValueError(f"the manifest lists no {METADATA}")
    shard_bytes = manifest.total_bytes - manifest.files[METADATA].size
    limit = limit_for(shard_bytes)
    try:
        content = read_plain(folder / METADATA, limit)
        table = from_json(content, limit) if content.startswith(_JSON) else from_pickle(content, shard_bytes)
        check(table, {name: record.size for name, record in manifest.files.items()})
    except ValueError as e:
        raise ValueError(f"{METADATA}: {e}") from e
    return table
