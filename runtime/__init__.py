"""Node side of Clusterwright: launcher, smoke test and ZeRO training. Importing it does not import torch."""

__all__: list[str] = []
