"""A script's names of DeepSpeed and its configurations, from its text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from runtime.as_deepspeed.engine import DeepSpeedEngine
from runtime.as_deepspeed.names import ENGINE_NAMES
from runtime.as_deepspeed.reading import Reading, read_script
from runtime.cli import app

SCRIPT = """
import deepspeed
import deepspeed.pipe as pipe
from deepspeed.moe.layer import MoE as Experts
from deepspeed.ops.adam import FusedAdam, nothing
from deepspeed import zero

with zero.Init(config_dict_or_path="x.json"):
    net = pipe.PipelineModule([])
engine, optimizer, _, _ = deepspeed.initialize(
    model=net,
    config={"train_batch_size": size, "zero_optimization": {"stage": 3}, "gradient_cliping": 1.0},
)
engine.offload_everything()
engine.monitor.start()
engine.module.monitor
deepspeed.runtime.utils.see_memory_usage("x")
deepspeed.init_inference(net)
other.init_inference(net)
"""


def read(text: str, *engine_has: str) -> Reading:
    return read_script(text, engine_has=frozenset(engine_has))


def test_names_that_are_not_here_are_found_with_their_lines() -> None:
    found = [(one.line, one.name) for one in read(SCRIPT, "module").findings]

    assert found == [
        (4, "deepspeed.moe.layer.MoE"),
        (5, "deepspeed.ops.adam.nothing"),
        (9, "deepspeed.pipe.PipelineModule"),
        (15, "engine.monitor"),
        (18, "deepspeed.init_inference"),
    ]


def test_each_says_the_way_here() -> None:
    [one] = read("import deepspeed.pipe\ndeepspeed.pipe.LayerSpec(int)").findings

    assert one.why == "pipeline parallelism is not implemented here"
    assert one.instead == "Give the whole model to initialize; stage 3 shards it."


def test_what_the_engine_has_is_no_finding() -> None:
    assert all(one.name != "engine.monitor" for one in read(SCRIPT, "monitor").findings)


def test_a_configuration_in_the_script_is_read_without_its_variables() -> None:
    [(line, values)] = read(SCRIPT).configurations

    assert line == 12
    assert values["train_batch_size"] == "auto"
    assert values["zero_optimization"] == {"stage": 3}


@pytest.mark.parametrize(
    "text",
    [
        "import deepspeed.comm as dist\ndist.all_reduce(x)\ndist.ReduceOp.SUM",
        "from deepspeed.runtime.zero.partition_parameters import ZeroParamStatus\nZeroParamStatus.AVAILABLE",
        "from deepspeed.accelerator import get_accelerator\nget_accelerator().anything()",
        "import deepspeed\ndeepspeed.__version__\ndeepspeed.zero.GatheredParameters([])",
        "from .deepspeed import mine",
        "from deepspeed.utils import *",
    ],
)
def test_what_is_here_is_no_finding(text: str) -> None:
    assert read(text).findings == ()


def check(tmp_path: Path, script: str, *options: str) -> tuple[int, str]:
    path = tmp_path / "train.py"
    path.write_text(script)
    told = CliRunner().invoke(app, ["check", str(path), *options])
    return told.exit_code, told.output


def test_the_command_tells_names_and_keys_and_how_to_go_on(tmp_path: Path) -> None:
    config = tmp_path / "ds_config.json"
    config.write_text(json.dumps({"train_batch_size": 8, "amp": {"enabled": True}}))

    status, told = check(tmp_path, SCRIPT, "--config", str(config))

    assert status == 1
    assert f"{tmp_path}/train.py:18: deepspeed.init_inference: inference engines are not here." in told
    assert "train.py:12: gradient_cliping: unknown key. Did you mean gradient_clipping?" in told
    assert "ds_config.json: amp: Apex AMP is gone. Use bf16 or fp16." in told
    assert told.splitlines()[-1].endswith("1 configurations in it; not here: 7")


def test_a_script_without_findings_passes(tmp_path: Path) -> None:
    status, told = check(tmp_path, "import deepspeed\ndeepspeed.initialize(model=net, config=path)\n")

    assert (status, told) == (0, "2 names of DeepSpeed's, 0 configurations in it; not here: nothing\n")


def test_what_is_no_python_is_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / "train.py"
    path.write_text("def (")

    told = CliRunner().invoke(app, ["check", str(path)])

    assert "no Python of this version" in str(told.exception) or told.exit_code == 2


def test_the_engine_s_names_that_are_here_are_among_those_that_scripts_call() -> None:
    """Else the list of names would have gone out of use."""
    assert len(ENGINE_NAMES & set(dir(DeepSpeedEngine))) > 30
