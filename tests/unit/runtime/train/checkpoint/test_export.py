"""Exported files are safetensors, of the size asked for."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch.distributed.checkpoint import state_dict_saver
from torch.distributed.checkpoint.filesystem import FileSystemWriter

from runtime.errors import BadInput, CheckpointFailed
from runtime.train.checkpoint.export import INDEX, Weight, export, header_of, split_by_size
from runtime.train.checkpoint.folder import Entry, entries
from runtime.train.checkpoint.manifest import MANIFEST, Manifest, record_of

WEIGHTS = {"layer.weight": torch.arange(12.0).view(3, 4), "layer.bias": torch.tensor([0.5, -1.5])}
BUFFER = torch.tensor([3, 4])


@pytest.fixture
def checkpoint(tmp_path: Path) -> Entry:
    return saved(tmp_path / "checkpoints" / "global_step1", WEIGHTS)


def saved(folder: Path, weights: Mapping[str, torch.Tensor]) -> Entry:
    tensors: dict[str, torch.Tensor] = {f"model.{name}": value for name, value in weights.items()}
    tensors["optimizer.layer.weight.exp_avg"] = torch.zeros(3, 4)
    with pytest.warns(UserWarning, match="save in a single process"):
        state_dict_saver.save(tensors, storage_writer=FileSystemWriter(folder))
    torch.save(
        {"tensors": {"model.count": BUFFER, "optimizer.layer.weight.step": BUFFER}}, folder / "progress.pt"
    )
    files = {path.name: record_of(path, 0) for path in folder.iterdir()}
    manifest = Manifest(tag=folder.name, run="r", step=1, stage=3, world_size=1, saved_at=0.0, files=files)
    (folder / MANIFEST).write_text(manifest.to_json())
    return entries(folder.parent)[0]


TYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "I64": torch.int64}


def read(path: Path) -> dict[str, torch.Tensor]:
    """The format as https://github.com/huggingface/safetensors#format states it."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    assert (8 + length) % 8 == 0
    assert header.pop("__metadata__") == {"format": "pt"}
    tensors = {}
    for name, about in header.items():
        start, end = about["data_offsets"]
        data = bytearray(content[8 + length + start : 8 + length + end])
        tensors[name] = torch.frombuffer(data, dtype=TYPES[about["dtype"]]).view(about["shape"])
    assert max(about["data_offsets"][1] for about in header.values()) == len(content) - 8 - length
    return tensors


def test_weights_and_buffers_are_exported_under_the_models_names(checkpoint: Entry, tmp_path: Path) -> None:
    [file] = export(checkpoint, tmp_path / "out", dtype=None, file_bytes=10**9)

    found = read(file)

    assert set(found) == {"layer.weight", "layer.bias", "count"}
    assert all(torch.equal(found[name], value) for name, value in WEIGHTS.items())
    assert torch.equal(found["count"], BUFFER)


def test_large_models_go_into_several_files_with_an_index(checkpoint: Entry, tmp_path: Path) -> None:
    files = export(checkpoint, tmp_path / "out", dtype=torch.bfloat16, file_bytes=24)

    index = json.loads((tmp_path / "out" / INDEX).read_text())
    found = {name: tensor for file in files for name, tensor in read(file).items()}

    assert len(files) == 2
    assert index["metadata"]["total_size"] == 24 + 4 + 16
    assert {
        name: (tmp_path / "out" / file).exists() for name, file in index["weight_map"].items()
    } == dict.fromkeys(found, True)
    assert torch.equal(found["layer.weight"], WEIGHTS["layer.weight"].bfloat16())
    assert found["count"].dtype is torch.int64


def test_a_damaged_checkpoint_is_not_exported(checkpoint: Entry, tmp_path: Path) -> None:
    (checkpoint.path / "progress.pt").unlink()

    with pytest.raises(CheckpointFailed, match=r"progress\.pt is missing"):
        export(checkpoint, tmp_path / "out", dtype=None, file_bytes=10**9)
    assert not (tmp_path / "out").exists()


def test_an_export_does_not_overwrite(checkpoint: Entry, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="it exists"):
        export(checkpoint, tmp_path, dtype=None, file_bytes=10**9)


def test_a_full_disk_leaves_nothing_and_the_next_export_works(checkpoint: Entry, tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(CheckpointFailed, match=r"export .*global_step1 to .*File too large"):
            export(checkpoint, tmp_path / "out", dtype=None, file_bytes=10**9)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoints"]

    seen: list[tuple[int, int]] = []
    (tmp_path / ".out.partial").mkdir()  # of somebody else, or of an export that was killed: nobody knows
    export(
        checkpoint,
        tmp_path / "out",
        dtype=None,
        file_bytes=10**9,
        on_progress=lambda written, total: seen.append((written, total)),
    )

    assert sorted(path.name for path in tmp_path.iterdir()) == [".out.partial", "checkpoints", "out"]
    assert [total for _, total in seen] == [72, 72, 72]
    assert seen[-1][0] == 72


# Run in a process of its own: what it may have beyond its imports is an eighth of the model.
LIMITED = """
import resource, sys
from pathlib import Path
import torch
from runtime.train.checkpoint.export import export
from runtime.train.checkpoint.folder import entries
torch.set_num_threads(1)
torch.rand(2, 2) @ torch.rand(2, 2)
status = Path("/proc/self/status").read_text().split()
used = int(status[status.index("VmData:") + 1]) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (used + int(sys.argv[3]), resource.RLIM_INFINITY))
[entry] = entries(Path(sys.argv[1]))
export(entry, Path(sys.argv[2]), dtype=torch.bfloat16, file_bytes=10**9)
"""


def test_a_model_is_exported_in_an_eighth_of_its_size(tmp_path: Path) -> None:
    weights = {f"layer{number}": torch.full((1024, 1024), float(number)) for number in range(32)}
    saved(tmp_path / "checkpoints" / "global_step1", weights)

    words = [sys.executable, "-c", LIMITED, tmp_path / "checkpoints", tmp_path / "out"]
    ended = subprocess.run([*words, str(16 << 20)], capture_output=True, text=True, check=False)

    assert ended.returncode == 0, ended.stderr
    found = read(tmp_path / "out" / "model.safetensors")
    assert all(torch.equal(found[name], value.bfloat16()) for name, value in weights.items())


def test_a_weight_that_is_larger_than_a_file_gets_one_of_its_own() -> None:
    weights = [Weight(name=str(size), shape=(size,), dtype=torch.float32) for size in (1, 9, 1, 1)]

    assert [[w.name for w in part] for part in split_by_size(weights, 8)] == [["1"], ["9"], ["1", "1"]]
    assert len(header_of(weights)) % 8 == 0
