"""Whatever is written, the answer is a configuration in force or a ConfigError, never a traceback."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.train.config import ConfigError, Situation, read_config
from runtime.train.config.fields import Block, walk
from runtime.train.config.load import parse
from runtime.train.config.schema import Config

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**12), 10**12),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(
        ["auto", "cpu", "nvme", "none", "AdamW", "WarmupLR", "OneCycle", "3", "", "true", "a\nb"]
    ),
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)


def names() -> list[str]:
    """Every dotted path of the schema and those within optimizer and scheduler."""
    config = Config.model_validate(
        {
            "optimizer": {"type": "AdamW"},
            "scheduler": {"type": "WarmupDecayLR", "params": {"total_num_steps": 1}},
            "activation_checkpointing": {},
        }
    )
    blocks = [name for name in type(config).model_fields if isinstance(getattr(config, name), Block)]
    return (
        [path for path, _, _ in walk(config)] + blocks + ["bfloat16", "amp", "zero_optimization.cpu_offload"]
    )


@st.composite
def configurations(draw: st.DrawFn) -> dict[str, Any]:
    """Real keys at their real places, with values that may be anything."""
    config: dict[str, Any] = {"train_micro_batch_size_per_gpu": 1}
    for path in draw(st.lists(st.sampled_from(names()), min_size=1, max_size=5)):
        block = config
        *outer, last = path.split(".")
        for part in outer:
            inner = block.get(part)
            block[part] = inner if isinstance(inner, dict) else {}
            block = block[part]
        block[last] = draw(JSON)
    return config


def read_or_refuse(config: dict[str, Any], world_size: int) -> Config | ConfigError:
    try:
        return read_config(config, Situation(world_size=world_size)).config
    except ConfigError as e:
        return e


@settings(max_examples=300, deadline=None)
@given(configurations(), st.integers(1, 5))
def test_no_value_ends_in_a_traceback(config: dict[str, Any], world_size: int) -> None:
    answer = read_or_refuse(config, world_size)

    if isinstance(answer, ConfigError):
        assert answer.problems
        assert all(problem.where and problem.found and problem.fix for problem in answer.problems)
    else:
        assert read_or_refuse(answer.model_dump(mode="json"), world_size) == answer


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=40) | JSON.map(json.dumps))
def test_no_text_ends_in_a_traceback(text: str) -> None:
    try:
        answer: object = parse(text, "x")
    except ConfigError as e:
        answer = e

    assert isinstance(answer, dict) or (isinstance(answer, ConfigError) and answer.problems)
