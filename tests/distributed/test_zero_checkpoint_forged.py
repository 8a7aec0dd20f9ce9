"""A forged checkpoint that ranks load: refused on all of them, nothing run, nothing outside written."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import BytesStorageMetadata, MetadataIndex

import runtime
from runtime.comm.group import shutdown
from runtime.errors import RuntimeFault
from runtime.topology import Topology
from tests.conftest import RecordRefusal
from tests.distributed.conftest import Ranks
from tests.distributed.zero_job import Model, Samples, config_for
from tests.unit.runtime.train.checkpoint.forged import Attack, record, sign, written

pytestmark = pytest.mark.distributed


def load(topology: Topology, roots: list[str]) -> list[str]:
    """What each load says; a rank finds its own folder where one has its number in it."""
    group = runtime.init_distributed(timeout_seconds=60)
    said = []
    for root in roots:
        engine, *_ = runtime.initialize(model=Model(), training_data=Samples(), config=config_for(3))
        try:
            engine.load_checkpoint(root.format(topology.rank))
        except RuntimeFault as e:
            said.append(f"{type(e).__name__}: {e}")
        except Exception as e:
            said.append(f"a traceback of {type(e).__name__}: {e}")
        else:
            said.append("loaded")
    shutdown(group)
    return said


def run_by_an_item(folder: Path, canary: Path) -> None:
    """An optimizer's state that is a pickle: torch's planner loads it without `weights_only`."""
    torch.save(Attack(canary), folder / "__0_1.distcp")
    metadata: Any = FileSystemReader(folder).read_metadata()
    place = next(iter(metadata.storage_data.values()))
    name = "optimizer.embed.weight.exp_avg"
    metadata.state_dict_metadata[name] = BytesStorageMetadata()
    length = (folder / "__0_1.distcp").stat().st_size
    metadata.storage_data[MetadataIndex(name)] = type(place)("__0_1.distcp", 0, length)
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))
    sign(folder)


@pytest.mark.attack("file")
def test_forged_checkpoints_are_refused_by_a_load(
    ranks: Ranks, tmp_path: Path, record_refusal: RecordRefusal
) -> None:
    model = {f"model.{name}": value.detach() for name, value in Model().named_parameters()}
    item = written(tmp_path / "item", tensors=model)
    run_by_an_item(item, tmp_path / "ran")
    direct = written(tmp_path / "direct")
    (direct / ".metadata").write_bytes(pickle.dumps(Attack(tmp_path / "ran")))
    sign(direct)
    written(tmp_path / "up")
    (tmp_path / "up" / "latest").write_text("../direct/global_step1")

    for said in ranks(
        load, 2, [str(tmp_path / name) for name in ("item", "direct", "up")], timeout_seconds=300
    ):
        for one in said:
            record_refusal(one)
        assert not (tmp_path / "ran").exists(), "it ran a program"
        assert "exp_avg is no tensor but a pickled object, which is not read" in said[0]
        assert "which a list of shards does not hold" in said[1]
        assert "cannot be a part of a file's name" in said[2]
        assert all(one.startswith("CheckpointFailed") for one in said)


@pytest.mark.attack("file")
def test_a_manifest_makes_no_rank_write_outside(
    ranks: Ranks, tmp_path: Path, record_refusal: RecordRefusal
) -> None:
    """It lists a file above its folder; what a disk lacks of a checkpoint is brought to it."""
    folder = written(tmp_path / "disk0")
    (tmp_path / "disk1").mkdir()
    (tmp_path / "disk0" / "victim").write_bytes(b"ours")
    victim = tmp_path / "disk1" / "victim"
    victim.write_bytes(b"theirs")
    files = json.loads((folder / "manifest.json").read_text())["files"]
    sign(folder, files={**files, "../victim": record(tmp_path / "disk0" / "victim")}, world_size=3)

    for said in ranks(load, 2, [str(tmp_path / "disk{}")], timeout_seconds=300):
        record_refusal(said[0])
        assert victim.read_bytes() == b"theirs", "it was overwritten"
        assert said[0].startswith("CheckpointFailed")
        assert "its manifest is damaged" in said[0]
