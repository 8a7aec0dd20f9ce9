"""What an estimate needs to know of a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Activations:
    """Bytes that autograd keeps for one sample: of one block, of one block's input, and outside of blocks."""

    block: int
    block_input: int
    outside: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """Numbers of parameters (tied ones once), and activations by the bytes of the compute type, 2 or 4.

    `block` is of the largest block that travels as one, `root` of what belongs to none; `block_trained`
    counts those of the block that need a gradient. `activations_from` says how activations were found.
    """

    name: str
    trained: int
    frozen: int
    blocks: int
    block: int
    block_trained: int
    root: int
    buffer_bytes: int
    activations: Mapping[int, Activations]
    activations_from: str

    @property
    def parameters(self) -> int:
        """All of them."""
        return self.trained + self.frozen
