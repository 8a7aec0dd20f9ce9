"""Node side of Clusterwright: launcher, smoke test and ZeRO training. Importing it does not import torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runtime.api import add_config_arguments, init_distributed, initialize, without_weights

__all__ = ["add_config_arguments", "init_distributed", "initialize", "without_weights"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'runtime' has no attribute {name!r}")
    import runtime.api

    return getattr(runtime.api, name)
