"""`python -m runtime estimate`: what a training will hold in memory, before it is started."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import typer

from runtime.terminal import Console
from runtime.train.config import Situation, read_config
from runtime.train.estimate.hugging_face import read_fields, read_model
from runtime.train.estimate.report import as_json, lines, parse_bytes, report
from runtime.train.estimate.states import Model, Settings


def estimate(
    model: str = typer.Option(
        ...,
        help="A Hugging Face config.json (llama, mistral, qwen2, gpt2), or FILE.py:FUNCTION; FUNCTION("
        "micro_batch, seq_length) returns the model and the arguments of its forward.",
    ),
    config: Path = typer.Option(..., help="A ds_config.json."),
    nodes: int = typer.Option(1, min=1, help="Nodes of the job."),
    gpus_per_node: int = typer.Option(1, min=1, help="Ranks on each node."),
    gpu_memory: str = typer.Option(..., help="Of one device: 24GB (10^9 bytes each) or 22.5GiB."),
    seq_length: int = typer.Option(2048, min=1, help="Tokens of a sample."),
    micro_batch: int = typer.Option(None, min=1, help="Samples of a micro-step; else the configuration's."),
    in_json: bool = typer.Option(False, "--json", help="As JSON, in bytes."),
) -> None:
    """Print the bytes of each rank, by stage and offload, and what makes it fit; exit 1 when it does not.

    Needs no GPU and does not allocate the model.
    """
    ranks, device_bytes = nodes * gpus_per_node, parse_bytes(gpu_memory)
    wanted = _model(model, seq_length)
    hidden = _hidden_size(model)
    resolved = read_config(config, Situation(world_size=ranks, hidden_size=hidden))
    settings = Settings.from_config(resolved.config, ranks)
    if micro_batch is not None:
        settings = replace(settings, micro_batch=micro_batch)
    found = report(wanted, settings, device_bytes, gpus_per_node)
    typer.echo(as_json(found) if in_json else "\n".join(lines(found)))
    raise typer.Exit(0 if found.fits else 1)


def _model(model: str, seq_length: int) -> Model:
    if not model.partition(":")[0].endswith(".py"):
        return read_model(Path(model), seq_length)
    from runtime.train.estimate.traced import trace_script

    with Console(stderr=True).status(f"running {model} on fake tensors"):
        return trace_script(model, seq_length)


def _hidden_size(model: str) -> int | None:
    """For keys that are auto; nothing that is estimated depends on it."""
    if model.partition(":")[0].endswith(".py"):
        return None
    return read_fields(Path(model)).get("hidden_size")
