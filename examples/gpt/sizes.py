"""The small GPT for `python -m runtime estimate --model examples/gpt/sizes.py:gpt`."""

from __future__ import annotations

import torch
from model import VOCABULARY, Gpt, Shape


def gpt(micro_batch: int, seq_length: int) -> tuple[Gpt, tuple[torch.Tensor, torch.Tensor]]:
    """The model, and inputs and targets of one micro-step; only their shapes and types count."""
    tokens = torch.randint(VOCABULARY, (micro_batch, seq_length))
    return Gpt(Shape(context=seq_length)), (tokens, tokens)
