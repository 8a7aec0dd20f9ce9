"""The engine is the module that it trains, to whoever asks: the same names, parameters and state dict."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn


class AsModule(nn.Module):
    """Answers for `module` as if it were that one, under the same names: nothing is registered twice.

    Modules below it are the module's and the module itself, not the engine. What it does not have it reads
    of the module, as DeepSpeed's engine does.
    """

    module: nn.Module

    def __init__(self, module: nn.Module) -> None:
        self.__dict__["module"] = module  # nn.Module would make it a part of this one
        super().__init__()
        # A module that holds this one loads its state dict by way of these.
        for held in ("_parameters", "_buffers", "_modules"):
            self.__dict__[held] = module.__dict__[held]

    @property
    def training(self) -> bool:
        """Whether the module is in training mode."""
        return self.module.training

    @training.setter
    def training(self, mode: bool) -> None:
        """nn.Module's constructor sets it; the module stays as it is."""

    def __getattr__(self, name: str) -> Any:
        if name == "module":  # not set yet
            raise AttributeError(name)
        return getattr(self.module, name)

    def train(self, mode: bool = True) -> Any:
        """Puts the model into training mode, or out of it."""
        self.module.train(mode)
        return self

    def eval(self) -> Any:
        """Puts the model into evaluation mode."""
        return self.train(False)

    def named_modules(
        self, memo: set[nn.Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Module]]:
        """The module and those below it, by name."""
        yield from self.module.named_modules(memo, prefix, remove_duplicate)

    def named_children(self) -> Iterator[tuple[str, nn.Module]]:
        """The module's children."""
        return self.module.named_children()

    def _named_members(self, *arguments: Any, **options: Any) -> Iterator[tuple[str, Any]]:
        yield from self.module._named_members(*arguments, **options)

    def state_dict(self, *arguments: Any, **options: Any) -> Any:
        """The module's state dict, under the module's names."""
        return self.module.state_dict(*arguments, **options)

    def load_state_dict(self, *arguments: Any, **options: Any) -> Any:
        """Loads a state dict of whole tensors into the module."""
        return self.module.load_state_dict(*arguments, **options)

    def _load_from_state_dict(self, *arguments: Any) -> None:
        self.module._load_from_state_dict(*arguments)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Any:
        self.module._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def apply(self, fn: Callable[[nn.Module], None]) -> Any:
        """Calls a function with the module's parts, then with the module."""
        self.module.apply(fn)
        return self

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.module!r})"
