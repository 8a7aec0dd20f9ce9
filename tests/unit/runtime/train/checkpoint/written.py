"""Checkpoints on disk without a job: real manifests over files of any content."""

from __future__ import annotations

from pathlib import Path

from runtime.train.checkpoint.folder import write_atomically, write_latest
from runtime.train.checkpoint.manifest import MANIFEST, Manifest, record_of


def write_checkpoint(root: Path, step: int, *, tag: str = "", run: str = "r", saved_at: float = 0.0) -> Path:
    folder = root / (tag or f"global_step{step}")
    folder.mkdir(parents=True)
    for name in ("__0_0.distcp", "progress.pt"):
        (folder / name).write_bytes(f"{name} of {step}".encode() * 10)
    manifest = Manifest(
        tag=folder.name,
        run=run,
        step=step,
        stage=3,
        world_size=1,
        saved_at=saved_at or float(step),
        files={path.name: record_of(path, 0) for path in sorted(folder.iterdir())},
    )
    write_atomically(folder / MANIFEST, manifest.to_json().encode())
    write_latest(root, folder.name)
    return folder
