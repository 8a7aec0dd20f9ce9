"""Checkpoints that DeepSpeed 0.19.8 saved: imported exactly as it says they are, or refused."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from runtime.errors import BadInput, CheckpointFailed, RuntimeFault
from runtime.train.checkpoint.deepspeed.convert import import_checkpoint, in_parts, in_ranges
from runtime.train.checkpoint.deepspeed.pickles import read
from runtime.train.checkpoint.deepspeed.source import is_deepspeed
from runtime.train.checkpoint.folder import entries, read_latest
from runtime.train.checkpoint.listing import read_table
from runtime.train.checkpoint.manifest import MANIFEST, Manifest, inspect
from runtime.train.checkpoint.shards import read_shards
from tests.cases.deepspeed.small import VARIANTS
from tests.conftest import RecordRefusal

CASES = Path(__file__).parents[4] / "cases" / "deepspeed"
TYPES = {"": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
OPTIMIZER = "zero_pp_rank_1_mp_rank_00_optim_states.pt"


def tensors_of(path: Path) -> dict[str, list[float]]:
    """Everything in the checkpoint's shards."""
    table = read_table(path, Manifest.from_json((path / MANIFEST).read_text()))
    tensors = {
        key: torch.empty(tensor.shape, dtype=getattr(torch, tensor.dtype)) for key, tensor in table.items()
    }
    read_shards(path, table, tensors)
    return {key: tensor.flatten().tolist() for key, tensor in tensors.items()}


@pytest.mark.parametrize("name", VARIANTS)
def test_masters_moments_and_progress_are_those_that_deepspeed_gathers(name: str, tmp_path: Path) -> None:
    recorded = json.loads((CASES / name / "recorded.json").read_text())

    path = import_checkpoint(CASES / name, tmp_path)
    [entry] = entries(tmp_path)
    progress = torch.load(path / "progress.pt", weights_only=True)

    assert entry.manifest is not None
    assert inspect(path, entry.manifest) == []
    assert read_latest(tmp_path) == "global_step3"
    kept_as = TYPES[name.partition("_")[2]]  # weights that are not trained have no masters
    expected = {
        f"model.{name}": torch.tensor(values).to(kept_as).tolist()
        for name, values in recorded["fixed"].items()
    }
    for parameter, states in recorded["states"].items():
        expected[f"model.{parameter}"] = states.pop("master")
        expected |= {f"optimizer.{parameter}.{kind}": values for kind, values in states.items()}
    assert tensors_of(path) == expected
    assert progress["global_steps"] == 3
    assert progress["client_state"] == {"seen": 12}
    assert progress["lr_scheduler"] == {"last_batch_iteration": 2}
    assert progress["loss_scale"]["value"] == recorded["loss_scale"]
    assert [group["lr"] for group in progress["param_groups"]] == recorded["lr"]
    assert [group["weight_decay"] for group in progress["param_groups"]] == [0.1, 0.0]
    assert progress["tensors"]["model.layers.0.calls"] == recorded["calls"]
    steps = {key: float(value) for key, value in progress["tensors"].items() if key.endswith(".step")}
    assert steps == {f"optimizer.{parameter}.step": 3.0 for parameter in recorded["states"]}


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = bytes(byte ^ 0xFF for byte in content[middle : middle + 64])
    path.write_bytes(content)


def halve(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def rewritten(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Another file of a rank's states, with what an import reads of them."""
    kept = read(path)["optimizer_state_dict"]
    plain = ("base_optimizer_state", "single_partition_of_fp32_groups", "partition_count")
    states = {"zero_stage": 1} | {name: kept[name] for name in plain}
    change(states)
    beside = path.with_suffix(".new")  # the tensors are mapped from the old one
    torch.save({"optimizer_state_dict": states}, beside)
    beside.replace(path)


def of_another_step(path: Path) -> None:
    def change(states: dict[str, Any]) -> None:
        for state in states["base_optimizer_state"]["state"].values():
            state["step"] += 1

    rewritten(path, change)


class Attack:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch /tmp/clusterwright-attacked",)


def attack(path: Path) -> None:
    torch.save({"optimizer_state_dict": Attack()}, path)


def rename_to_model_parallel(path: Path) -> None:
    path.rename(path.with_name(path.name.replace("mp_rank_00", "mp_rank_01")))


def remove_all(path: Path) -> None:
    for file in path.parent.glob("*optim_states.pt"):
        file.unlink()


def packed(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a/data.pkl", bytes(2**26))


def spoilt(path: Path) -> None:
    packed(path)
    content = bytearray(path.read_bytes())
    content[40:48] = b"\xff" * 8
    path.write_bytes(content)


def encrypted(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[content.rindex(b"PK\1\2") + 8] |= 1
    path.write_bytes(content)


def of_states(**changes: object) -> Callable[[Path], None]:
    """Of the first rank, whose file says how many there are."""
    first = OPTIMIZER.replace("rank_1", "rank_0")
    return lambda path: rewritten(path.with_name(first), lambda states: states.update(changes))


def of_model(**changes: object) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        file = path.with_name("mp_rank_00_model_states.pt")
        torch.save(torch.load(file, weights_only=True, mmap=False) | changes, file)

    return change


def in_each_other(count: int) -> list[Any]:
    made: list[Any] = []
    for _ in range(count):
        made = [made, made]
    return made


FORGED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a trillion ranks": (of_states(partition_count=10**12), r"rank_2_mp.*and 999999999934 more is missing"),
    "a number of ranks that is none": (of_states(partition_count=[]), "ValueError: .*empty"),
    "no optimizer": (of_states(base_optimizer_state={}), "KeyError: 'state'"),
    "no steps": (of_model(global_steps="x"), "ValueError: .invalid literal"),
    "no weights": (of_model(module={}), "KeyError: '"),
    "shapes that are none": (of_model(param_shapes=[{"a": 3}]), "TypeError: "),
    "a script's state without end": (of_model(client=in_each_other(60)), r"more than \d+ parts"),
    "a script's state that is deep": (
        of_model(client=json.loads("[" * 300 + "]" * 300)),
        "nested deeper than 200 times",
    ),
    "a packed record": (packed, "its records are packed, encrypted or overlap"),
    "a spoilt record": (spoilt, "its records are packed, encrypted or overlap"),
    "an encrypted record": (encrypted, "its records are packed, encrypted or overlap"),
}


@pytest.mark.attack("file")
@pytest.mark.parametrize("name", FORGED)
def test_what_is_forged_is_refused_and_nothing_is_written(
    name: str, tmp_path: Path, record_refusal: RecordRefusal
) -> None:
    forge, said = FORGED[name]
    shutil.copytree(CASES / "zero1", tmp_path / "source")
    forge(tmp_path / "source" / "global_step3" / OPTIMIZER)

    with pytest.raises(CheckpointFailed, match=said) as refusal:
        import_checkpoint(tmp_path / "source", tmp_path / "out")

    record_refusal(refusal.value)
    assert not (tmp_path / "out").exists()


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a shard deleted": (Path.unlink, f"{OPTIMIZER} is missing"),
    "a shard truncated": (halve, "it is cut off or no archive of torch.save"),
    "64 bytes of a shard flipped": (flip, "it is cut off|CRC-32"),
    "files of two saves": (
        of_another_step,
        r"files of two saves: the optimizer's step is \[3, 3\] on rank 0 and",
    ),
    "a shard that would run a program": (attack, "it cannot be read safely"),
    "a shard of another kind": (lambda path: torch.save([1], path), "it is none of DeepSpeed's files"),
    "a rank too many": (
        lambda path: shutil.copy(path, str(path).replace("rank_1_", "rank_2_")),
        "besides those of 2",
    ),
    "model parallelism": (rename_to_model_parallel, "tensor or pipeline parallelism"),
    "nothing of ZeRO": (remove_all, "it has no file of DeepSpeed's ZeRO"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_damaged_or_foreign_is_refused_and_nothing_is_written(name: str, tmp_path: Path) -> None:
    damage, said = REFUSED[name]
    source = tmp_path / "source"
    shutil.copytree(CASES / "zero1", source)
    damage(source / "global_step3" / OPTIMIZER)

    with pytest.raises(RuntimeFault, match=said):
        import_checkpoint(source, tmp_path / "out")

    assert not (tmp_path / "out").exists()
    assert not Path("/tmp/clusterwright-attacked").exists()


def test_a_missing_model_file_is_named(tmp_path: Path) -> None:
    shutil.copytree(CASES / "zero3", tmp_path / "source")
    (tmp_path / "source" / "global_step3" / "zero_pp_rank_1_mp_rank_00_model_states.pt").unlink()

    with pytest.raises(CheckpointFailed, match=r"zero_pp_rank_1_mp_rank_00_model_states\.pt: it is missing"):
        import_checkpoint(tmp_path / "source", tmp_path / "out")


def test_an_import_does_not_overwrite(tmp_path: Path) -> None:
    import_checkpoint(CASES / "zero1" / "global_step3", tmp_path)

    with pytest.raises(BadInput, match="it exists"):
        import_checkpoint(CASES / "zero2", tmp_path)


def test_a_folder_of_deepspeed_is_known_from_one_of_ours(tmp_path: Path) -> None:
    import_checkpoint(CASES / "zero3_bf16", tmp_path)

    assert is_deepspeed(CASES / "zero3_bf16")
    assert is_deepspeed(CASES / "zero3_bf16" / "global_step3")
    assert not is_deepspeed(tmp_path)


def test_an_object_in_the_scripts_state_is_left_out_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(CASES / "zero1", tmp_path / "source")
    file = tmp_path / "source" / "global_step3" / "mp_rank_00_model_states.pt"
    content = torch.load(file, weights_only=True)
    torch.save(content | {"where": {"path": Path("a")}}, file)

    path = import_checkpoint(tmp_path / "source", tmp_path / "out")

    assert torch.load(path / "progress.pt", weights_only=True)["client_state"] == {"seen": 12}
    assert "left out of the script's state, since they hold objects: where" in caplog.text


def test_a_parameter_may_lie_on_several_ranks() -> None:
    groups = [{"a": (3,), "b": (2, 2)}, {"c": (1,)}]

    places = in_ranges(groups, [4, 2], [[1, 0], [0]], 2)

    pieces = {name: [(p.rank, p.start, p.stop) for p in place.pieces] for name, place in places.items()}
    assert pieces == {"a": [(0, 0, 3)], "b": [(1, 0, 4)], "c": [(0, 0, 1)]}
    assert in_ranges([{"a": (3,), "b": (4,)}], [4], [[0, 0]], 2)["b"].pieces[0].stop == 4


def test_a_parameter_of_fewer_elements_than_ranks_is_on_the_first_ones() -> None:
    places = in_parts([{"a": (5,), "none": (0,)}, {"b": (1,)}], [2, 1], 3)

    pieces = {name: [(p.rank, p.start, p.stop) for p in place.pieces] for name, place in places.items()}
    assert pieces == {"a": [(0, 0, 2), (1, 0, 2), (2, 0, 1)], "none": [], "b": [(0, 0, 1)]}
    assert [place.flat for place in places.values()] == [0, 0, 1]
    with pytest.raises(ValueError, match="no sub-group holds b whole"):
        in_parts([{"a": (5,)}, {"b": (3,)}], [2], 3)
