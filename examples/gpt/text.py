"""Text as a dataset of windows of bytes."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.utils.data import Dataset


class Windows(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Windows of `context` bytes, half overlapping, each with the window one byte later as its target."""

    def __init__(self, path: Path, context: int) -> None:
        self.bytes = torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8)
        self.context = context
        self.stride = max(1, context // 2)

    def __len__(self) -> int:
        return max(0, (len(self.bytes) - self.context - 1) // self.stride + 1)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        start = index * self.stride
        window = self.bytes[start : start + self.context + 1].long()
        return window[:-1], window[1:]
