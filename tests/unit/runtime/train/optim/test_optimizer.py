"""Parameter groups survive sharding by name; optimizers are those that the configuration means."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from runtime.errors import BadInput
from runtime.train.config.schema import Config
from runtime.train.optim.optimizer import attach, build_optimizer, detach, name_groups, parameter_groups


def model() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))


def resharded(whole: nn.Sequential) -> None:
    """Puts new parameters in the place of the old ones, as sharding does."""
    for layer in whole:
        layer.weight, layer.bias = nn.Parameter(layer.weight.data), nn.Parameter(layer.bias.data)


def test_groups_keep_their_options_and_follow_the_parameters() -> None:
    whole = model()
    given = [{"params": whole[0].parameters(), "lr": 0.5}, {"params": [whole[1].bias], "weight_decay": 0.1}]

    named = name_groups(whole, given)
    resharded(whole)
    groups = parameter_groups(whole, named)

    assert groups[0]["lr"] == 0.5
    assert [p is q for p, q in zip(groups[0]["params"], whole[0].parameters(), strict=True)] == [True, True]
    assert groups[1]["params"][0] is whole[1].bias


def test_without_groups_what_needs_a_gradient_is_trained() -> None:
    whole = model()
    whole[0].requires_grad_(False)

    assert name_groups(whole, None)[0].names == ("1.weight", "1.bias")


def test_a_parameter_of_another_model_is_refused() -> None:
    with pytest.raises(BadInput, match=r"a parameter of shape \(3, 2\) that is none of the model's"):
        name_groups(model(), model().parameters())


def test_an_optimizer_that_exists_is_pointed_at_the_sharded_parameters() -> None:
    whole = model()
    optimizer = torch.optim.SGD(whole.parameters(), lr=0.1)

    named = detach(optimizer, whole)
    resharded(whole)
    attach(optimizer, whole, named)

    assert [id(p) for p in optimizer.param_groups[0]["params"]] == [id(p) for p in whole.parameters()]


def test_an_optimizer_that_has_taken_steps_is_refused() -> None:
    whole = model()
    optimizer = torch.optim.AdamW(whole.parameters())
    whole(torch.ones(1, 2)).backward()
    optimizer.step()

    with pytest.raises(BadInput, match="it has states already"):
        detach(optimizer, whole)


@pytest.mark.parametrize(
    ("block", "kind", "options"),
    [
        ({"type": "AdamW"}, torch.optim.AdamW, {"lr": 1e-3, "weight_decay": 0.0, "fused": True}),
        ({"type": "Adam"}, torch.optim.AdamW, {"betas": (0.9, 0.999)}),
        ({"type": "Adam", "params": {"adam_w_mode": False}}, torch.optim.Adam, {"eps": 1e-8}),
        ({"type": "SGD", "params": {"momentum": 0.5}}, torch.optim.SGD, {"momentum": 0.5}),
        ({"type": "Adagrad", "params": {"lr": 0.2}}, torch.optim.Adagrad, {"lr": 0.2}),
    ],
)
def test_the_optimizer_is_the_one_that_is_meant(
    block: dict[str, Any], kind: type, options: dict[str, Any]
) -> None:
    config = Config.model_validate({"optimizer": block}).optimizer
    assert config is not None

    built = build_optimizer(config, [{"params": list(model().parameters())}])

    assert type(built) is kind
    assert {name: built.param_groups[0][name] for name in options} == options


@pytest.mark.parametrize(("kind", "decoupled"), [("Adam", False), ("AdamW", True)])
def test_moments_are_left_as_they_are_where_their_bias_is_not_to_be_corrected(
    kind: str, decoupled: bool
) -> None:
    """By the formula of Kingma and Ba (2014), algorithm 1, without its last two lines of correction."""
    params = {
        "lr": 0.1,
        "eps": 1e-3,
        "weight_decay": 0.01,
        "bias_correction": False,
        "adam_w_mode": decoupled,
    }
    config = Config.model_validate({"optimizer": {"type": kind, "params": params}}).optimizer
    assert config is not None
    weight = nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer = build_optimizer(config, [{"params": [weight]}])
    expected, first, second = weight.detach().clone(), torch.zeros(2), torch.zeros(2)

    for gradient in (torch.tensor([0.5, 1.0]), torch.tensor([-1.0, 2.0])):
        weight.grad = gradient.clone()
        optimizer.step()
        if decoupled:
            expected = expected * (1 - 0.1 * 0.01)
        else:
            gradient = gradient + 0.01 * expected
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        expected = expected - 0.1 * first / (second.sqrt() + 1e-3)

    assert torch.allclose(weight, expected, rtol=1e-5)
