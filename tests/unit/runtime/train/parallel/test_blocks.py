"""Transformer blocks are found from a model's structure."""

from __future__ import annotations

import pytest
from torch import nn

from runtime.errors import BadInput
from runtime.train.parallel.blocks import find_blocks


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Layer(), Layer()])
        self.norms = nn.ModuleList([nn.LayerNorm(2), nn.Linear(2, 2)])


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.head = Encoder(), nn.Linear(2, 2)


def test_the_outermost_stack_of_one_class_is_taken() -> None:
    model = Model()

    assert find_blocks(model) == list(model.encoder.layers)


def test_classes_that_are_named_are_taken() -> None:
    model = Model()

    assert find_blocks(model, [Encoder]) == [model.encoder]


def test_a_class_that_the_model_lacks_is_an_error() -> None:
    with pytest.raises(BadInput, match="Model has no such module"):
        find_blocks(Model(), [nn.Conv2d])


def test_what_a_hugging_face_model_states_is_taken() -> None:
    model = Model()
    model._no_split_modules = ["Encoder"]  # type: ignore[assignment]

    assert find_blocks(model) == [model.encoder]


def test_a_model_without_stacks_has_no_blocks() -> None:
    assert find_blocks(nn.Linear(2, 2)) == []


def test_modules_in_the_place_of_classes_are_refused_by_name() -> None:
    model = Model()

    with pytest.raises(BadInput, match="Encoder among them, which is no class"):
        find_blocks(model, [model.encoder])  # type: ignore[list-item]
