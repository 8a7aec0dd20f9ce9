"""The optimizer over sharded parameters: from the configuration, from a callable, or one that exists already.

Sharding puts new parameters in the place of the old ones. Groups are therefore noted by name before it
(`name_groups`) and looked up after it (`parameter_groups`); nothing keeps a whole parameter alive between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from runtime.errors import BadInput
from runtime.train.config.training import Adam, Optimizer, Sgd
from runtime.train.optim.adam import Adam as AdamOfChoice

MakeOptimizer = Callable[[list[dict[str, Any]]], torch.optim.Optimizer]
Parameters = Iterable[nn.Parameter] | Iterable[Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedGroup:
    """A parameter group by the names of its parameters; `options` are its own learning rate and the like."""

    names: tuple[str, ...]
    options: Mapping[str, Any]


def name_groups(model: nn.Module, parameters: Parameters | None) -> list[NamedGroup]:
    """The groups of `parameters`; one of all the model's that need a gradient where None is given.

    Raises:
        BadInput: a parameter is none of the model's.
    """
    if parameters is None:
        names = tuple(name for name, p in model.named_parameters() if p.requires_grad)
        return [NamedGroup(names=names, options={})]
    known = {id(p): name for name, p in model.named_parameters()}
    given: list[Any] = list(parameters)
    groups: list[Mapping[str, Any]] = given
    if not (given and isinstance(given[0], Mapping)):
        groups = [{"params": given}]
    return [
        NamedGroup(
            names=tuple(_name(p, known) for p in _listed(group["params"])),
            options={key: value for key, value in group.items() if key != "params"},
        )
        for group in groups
    ]


def parameter_groups(model: nn.Module, named: Sequence[NamedGroup]) -> list[dict[str, Any]]:
    """The groups over the model as it is now."""
    now = dict(model.named_parameters())
    return [{**group.options, "params": [now[name] for name in group.names]} for group in named]


def build_optimizer(config: Optimizer, groups: Sequence[Mapping[str, Any]]) -> torch.optim.Optimizer:
    """The optimizer that a configuration asks for; Adam with PyTorch's fused kernel."""
    trained = [{**group, "params": [p for p in group["params"] if p.requires_grad]} for group in groups]
    if isinstance(config, Adam):
        return _adam(config, trained)
    options = config.params.model_dump()
    if isinstance(config, Sgd):
        # SGD's fused kernel knows no DTensor (torch 2.13).
        return torch.optim.SGD(trained, **options, foreach=True)
    return torch.optim.Adagrad(trained, **options)


def _adam(config: Adam, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    params = config.params
    decoupled = config.type == "AdamW" or params.adam_w_mode
    options: dict[str, Any] = {
        "lr": params.lr,
        "betas": params.betas,
        "eps": params.eps,
        "weight_decay": params.weight_decay,
    }
    if not params.bias_correction:
        return AdamOfChoice(groups, decoupled=decoupled, bias_correction=False, **options)
    return (torch.optim.AdamW if decoupled else torch.optim.Adam)(groups, fused=True, **options)


def needed(optimizer: torch.optim.Optimizer | None, asked: str) -> torch.optim.Optimizer:
    """The optimizer of an engine that is asked for what takes one.

    Raises:
        BadInput: it has none.
    """
    if optimizer is None:
        raise BadInput(
            asked,
            found="an engine without optimizer, which computes forwards only",
            fix="Add an optimizer block to the configuration, or pass optimizer=... to runtime.initialize.",
        )
    return optimizer


def detach(optimizer: torch.optim.Optimizer, model: nn.Module) -> list[NamedGroup]:
    """Takes the parameters out of an optimizer that was made for the whole model, and returns its groups.

    Raises:
        BadInput: it has taken steps, whose states are of the whole parameters' shape.
    """
    if any(optimizer.state.values()):
        raise BadInput(
            "shard an optimizer with its model",
            found="it has states already, of whole parameters",
            fix="Pass it before its first step; a checkpoint brings states back.",
        )
    named = name_groups(model, optimizer.param_groups)
    for group in optimizer.param_groups:
        group["params"] = []
    optimizer.state.clear()
    return named


def attach(optimizer: torch.optim.Optimizer, model: nn.Module, named: Sequence[NamedGroup]) -> None:
    """Gives a detached optimizer the parameters of the sharded model."""
    for group, now in zip(optimizer.param_groups, parameter_groups(model, named), strict=True):
        group["params"] = now["params"]


def _name(parameter: nn.Parameter, known: Mapping[int, str]) -> str:
    if id(parameter) not in known:
        raise BadInput(
            "shard the optimizer's parameters with the model",
            found=f"a parameter of shape {tuple(parameter.shape)} that is none of the model's",
            fix="Pass the parameters of the model that runtime.initialize is given.",
        )
    return known[id(parameter)]


def _listed(parameters: nn.Parameter | Iterable[nn.Parameter]) -> list[nn.Parameter]:
    return [parameters] if isinstance(parameters, nn.Parameter) else list(parameters)
