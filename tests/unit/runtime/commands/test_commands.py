"""`python -m runtime config` and `checkpoint`, run as a person runs them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from runtime.cli import app
from runtime.train.checkpoint.folder import entries
from runtime.train.config import ConfigError
from tests.unit.runtime.train.checkpoint.written import write_checkpoint

EXAMPLE = Path(__file__).parents[4] / "examples" / "gpt" / "ds_config.json"


def run(*words: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout


def test_explain_says_where_each_value_came_from() -> None:
    code, out = run("config", "explain", EXAMPLE, "--world-size", "4")

    lines = {line.split()[0]: line.split(maxsplit=2)[1:] for line in out.splitlines()}
    assert code == 0
    assert lines["train_micro_batch_size_per_gpu"] == ["4", "solved: total = micro x steps x 4 ranks"]
    assert lines["zero_optimization.stage"] == ["3", "written"]
    assert lines["zero_optimization.reduce_bucket_size"][1].startswith("written; no effect here: FSDP2")


def test_explain_in_json_can_hold_every_key() -> None:
    code, out = run("config", "explain", EXAMPLE, "--json", "--all")

    rows = {row["key"]: row for row in json.loads(out)}
    assert code == 0
    assert rows["gradient_clipping"] == {
        "key": "gradient_clipping",
        "value": 1.0,
        "source": "written",
        "note": "",
    }
    assert rows["optimizer.params.weight_decay"]["source"] == "default"


def test_check_is_silent(tmp_path: Path) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text('{"train_batch_size": 4, "gradient_cliping": 1}')

    assert run("config", "explain", EXAMPLE, "--check") == (0, "")
    assert run("config", "explain", bad, "--check") == (2, "")
    with pytest.raises(ConfigError, match="Did you mean gradient_clipping"):
        run("config", "explain", bad)


def test_the_schema_accepts_the_example_and_knows_other_names() -> None:
    code, out = run("config", "schema")

    schema = json.loads(out)
    assert code == 0
    assert schema["additionalProperties"] is False
    assert schema["properties"]["bfloat16"]["description"] == "Other name of bf16."
    assert "max_live_parameters" in schema["$defs"]["Zero"]["properties"]
    assert {"const": "auto"} in schema["$defs"]["AdamParams"]["properties"]["lr"]["anyOf"]


def test_verify_names_what_is_damaged_and_fails(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 1)
    assert run("checkpoint", "verify", tmp_path)[0] == 0

    (write_checkpoint(tmp_path, 2) / "progress.pt").unlink()
    code, out = run("checkpoint", "verify", tmp_path)

    assert code == 1
    assert "DAMAGED: progress.pt is missing  (latest)" in out.splitlines()[0]
    assert out.splitlines()[1].endswith("whole")


def test_one_checkpoint_is_verified_by_its_own_path(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 1)
    (write_checkpoint(tmp_path, 2) / "progress.pt").unlink()

    code, out = run("checkpoint", "verify", tmp_path / "global_step1", "--json")

    assert code == 0
    assert [verdict["tag"] for verdict in json.loads(out)] == ["global_step1"]


def test_list_does_not_read_the_contents(tmp_path: Path) -> None:
    (write_checkpoint(tmp_path, 7) / "progress.pt").unlink()

    code, out = run("checkpoint", "list", tmp_path)

    assert code == 0
    assert out.startswith("global_step7  step 7  1 ranks")


def test_prune_says_what_would_go_and_then_removes_it(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        write_checkpoint(tmp_path, step)

    checked = run("checkpoint", "prune", tmp_path, "--keep-last", "1", "--keep-every", "2", "--check")
    before = [entry.tag for entry in entries(tmp_path)]
    run("checkpoint", "prune", tmp_path, "--keep-last", "1", "--keep-every", "2")

    assert checked == (0, f"would remove {tmp_path / 'global_step1'}\n")
    assert before == ["global_step3", "global_step2", "global_step1"]
    assert [entry.tag for entry in entries(tmp_path)] == ["global_step3", "global_step2"]


def test_prune_keeps_what_latest_names(tmp_path: Path) -> None:
    for step in (3, 2, 1):
        write_checkpoint(tmp_path, step)

    run("checkpoint", "prune", tmp_path, "--keep-last", "1")

    assert [entry.tag for entry in entries(tmp_path)] == ["global_step3", "global_step1"]
