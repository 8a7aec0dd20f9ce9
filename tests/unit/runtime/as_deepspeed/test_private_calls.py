"""What transformers 5.24 and accelerate 1.15 call of DeepSpeed, a test each: keywords and names, as they do.

A release that calls something else is seen by tests/distributed/test_hugging_face.py (`long`).
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator

import pytest

from runtime.as_deepspeed.engine import DeepSpeedEngine
from runtime.as_deepspeed.finder import Finder
from runtime.train.config import Situation, read_config

# Name of the engine's, keywords with which it is called, where.
OF_THE_ENGINE = [
    ("set_gradient_accumulation_boundary", ("is_boundary",), "accelerate utils/deepspeed.py backward"),
    ("backward", ("scale_wrt_gas",), "accelerate utils/deepspeed.py backward; transformers trainer.py"),
    ("step", (), "accelerate utils/deepspeed.py backward"),
    ("get_global_grad_norm", (), "accelerate utils/deepspeed.py"),
    ("zero_gather_16bit_weights_on_model_save", (), "accelerate accelerator.py get_state_dict"),
    (
        "_zero3_consolidated_16bit_state_dict",
        ("exclude_frozen_parameters",),
        "accelerate get_state_dict, transformers trainer.py save_model",
    ),
    ("save_checkpoint", ("exclude_frozen_parameters",), "transformers trainer.py looks for the keyword"),
    ("save_checkpoint", ("save_dir", "tag"), "accelerate accelerator.py save_state"),
    (
        "load_checkpoint",
        ("load_module_strict", "load_optimizer_states", "load_lr_scheduler_states"),
        "transformers integrations/deepspeed.py deepspeed_load_checkpoint",
    ),
    ("compile", ("backend", "compile_kwargs"), "accelerate accelerator.py _prepare_deepspeed"),
    ("train", (), "transformers trainer.py"),
    ("eval", (), "transformers trainer.py evaluate"),
    ("destroy", (), "accelerate accelerator.py free_memory"),
]
OF_THE_MODULE = [
    ("deepspeed", "initialize"),
    ("deepspeed", "DeepSpeedEngine"),
    ("deepspeed.accelerator", "get_accelerator"),
    ("deepspeed.checkpoint.utils", "clone_tensors_for_torch_save"),
    ("deepspeed.comm", "get_rank"),
    ("deepspeed.comm", "init_distributed"),
    ("deepspeed.comm", "is_initialized"),
    ("deepspeed.launcher.runner", "DEEPSPEED_ENVIRONMENT_NAME"),
    ("deepspeed.ops.adagrad", "DeepSpeedCPUAdagrad"),
    ("deepspeed.ops.adam", "DeepSpeedCPUAdam"),
    ("deepspeed.runtime.lr_schedules", "VALID_LR_SCHEDULES"),
    ("deepspeed.runtime.zero.partition_parameters", "_orig_torch_arange"),
    ("deepspeed.runtime.zero.partition_parameters", "zero_wrapper_for_fp_tensor_constructor"),
    ("deepspeed.utils", "groups"),
    ("deepspeed.utils", "logger"),
    ("deepspeed.utils", "set_z3_leaf_modules"),
    ("deepspeed.zero", "GatheredParameters"),
    ("deepspeed.zero", "Init"),
    ("deepspeed.zero", "register_external_parameter"),
]


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`import deepspeed` in this process, and no trace of it afterwards."""
    import sys

    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "deepspeed"]:
        del sys.modules[name]


@pytest.mark.parametrize(("name", "keywords", "where"), OF_THE_ENGINE, ids=lambda value: str(value)[:40])
def test_the_engine_is_called_so(name: str, keywords: tuple[str, ...], where: str) -> None:
    known = inspect.signature(getattr(DeepSpeedEngine, name)).parameters

    assert set(keywords) <= set(known), where


@pytest.mark.parametrize(("module", "name"), OF_THE_MODULE)
def test_the_module_has(answered: None, module: str, name: str) -> None:
    assert getattr(importlib.import_module(module), name) is not None


def test_initialize_takes_the_configuration_by_its_old_keyword(answered: None) -> None:
    """accelerate passes `config_params`."""
    initialize = importlib.import_module("deepspeed").initialize

    assert list(inspect.signature(initialize).parameters) == [
        *("args", "model", "optimizer", "model_parameters", "training_data", "lr_scheduler"),
        *("distributed_port", "mpu", "dist_init_required", "collate_fn", "config", "mesh_param"),
        "config_params",
    ]


def test_the_engine_s_configuration_is_asked_like_a_dict() -> None:
    """transformers: self.deepspeed.config.get("zero_optimization", {}).get("stage", None) == 3."""
    config = read_config({"train_batch_size": 1, "zero_optimization": {"stage": 3}}, Situation(world_size=1))

    assert config.config.get("zero_optimization", {}).get("stage", None) == 3
    assert config.config.get("nothing", 4) == 4
    assert config.config["zero_optimization"]["stage"] == 3
    with pytest.raises(KeyError):
        config.config["nothing"]


def test_a_function_of_transformers_is_put_around_init_s(answered: None) -> None:
    """transformers: prevent_arange_dtype_change sets the module's attribute, and puts it back."""
    module = importlib.import_module("deepspeed.runtime.zero.partition_parameters")
    kept = module.zero_wrapper_for_fp_tensor_constructor

    module.zero_wrapper_for_fp_tensor_constructor = print
    module.zero_wrapper_for_fp_tensor_constructor = kept

    assert kept(len, "float32") is len
