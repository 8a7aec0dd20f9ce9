"""Adam from files against PyTorch's own, on plain tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from runtime.train.config.training import Adam
from runtime.train.offload.adam import DiskAdam
from runtime.train.offload.files import Transfers

SHAPES = [(70, 50), (3,), (0,), (1025,), (40, 40)]
PARAMS: dict[str, Any] = {"lr": 0.01, "weight_decay": 0.1, "betas": [0.8, 0.95], "eps": 1e-6}


def parameters() -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(1)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def groups(listed: list[torch.nn.Parameter]) -> list[dict[str, Any]]:
    """Two groups that share sub-groups of a few pages."""
    return [{"params": listed[:2], "lr": 0.1}, {"params": listed[2:]}]


def from_files(listed: list[torch.nn.Parameter], folder: Path, buffers: int, **params: Any) -> DiskAdam:
    return DiskAdam(
        groups(listed),
        Adam.model_validate({"type": "Adam", "params": {**PARAMS, **params}}, strict=False),
        folder=folder,
        sub_group_size=2048,
        buffer_count=buffers,
        transfers=Transfers(threads=2, block_bytes=4096),
    )


def run(
    optimizer: torch.optim.Optimizer, listed: list[torch.nn.Parameter], steps: range
) -> list[torch.Tensor]:
    """Steps in which one parameter has no gradient every second time."""
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        for index, parameter in enumerate(listed):
            gradient = torch.randn(parameter.shape, generator=generator)
            parameter.grad = None if index == 3 and step % 2 else gradient
        optimizer.step()
    return [parameter.detach().clone() for parameter in listed]


@pytest.mark.parametrize("buffers", [1, 2, 3, 8])
@pytest.mark.parametrize(
    ("decoupled", "peer"), [(True, torch.optim.AdamW), (False, torch.optim.Adam)], ids=["AdamW", "Adam"]
)
def test_it_is_pytorch_s(
    tmp_path: Path, buffers: int, decoupled: bool, peer: type[torch.optim.Optimizer]
) -> None:
    ours, theirs = parameters(), parameters()
    options = {**PARAMS, "betas": tuple(PARAMS["betas"])}

    found = run(from_files(ours, tmp_path, buffers, adam_w_mode=decoupled), ours, range(5))

    expected = run(peer(groups(theirs), fused=True, **options), theirs, range(5))  # type: ignore[call-arg]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


def test_a_state_dict_goes_into_another_optimizer(tmp_path: Path) -> None:
    first, second = parameters(), parameters()
    optimizer = from_files(first, tmp_path, 2)
    middle = run(optimizer, first, range(3))
    other = from_files(second, tmp_path, 2)
    other.load_state_dict(optimizer.state_dict())
    for parameter, value in zip(second, middle, strict=True):
        parameter.data.copy_(value)

    assert len(other.state) == len(optimizer.state) == len(SHAPES)
    for one, two in zip(run(optimizer, first, range(3, 6)), run(other, second, range(3, 6)), strict=True):
        assert torch.equal(one, two)


def test_there_is_no_state_before_the_first_step(tmp_path: Path) -> None:
    listed = parameters()
    optimizer = from_files(listed, tmp_path, 2)

    assert dict(optimizer.state) == {}
    assert optimizer.state.get(listed[0], {}) == {}
    run(optimizer, listed, range(1))
    optimizer.state.clear()
    assert len(optimizer.state) == 0
