"""Blocks with the arithmetic of transformers' modules, to hold the formulas of activations against."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

LLAMA = {
    "model_type": "llama",
    "hidden_size": 256,
    "intermediate_size": 704,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "num_hidden_layers": 3,
    "vocab_size": 1000,
}
GPT2 = {
    "model_type": "gpt2",
    "n_embd": 256,
    "n_head": 8,
    "n_layer": 3,
    "n_positions": 512,
    "vocab_size": 1000,
}
WIDTH, HEAD = 256, 32


class RmsNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = x.to(torch.float32)
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)
        return self.weight * wide.to(x.dtype)


def rotate(x: torch.Tensor) -> torch.Tensor:
    """Rotary embedding as `q * cos + rotate_half(q) * sin`."""
    cosine = torch.ones(x.shape[2], HEAD, dtype=x.dtype)
    first, second = x[..., : HEAD // 2], x[..., HEAD // 2 :]
    return (x * cosine) + (torch.cat((-second, first), dim=-1) * cosine)


class LlamaBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(RmsNorm() for _ in range(2))
        self.q = nn.Linear(WIDTH, WIDTH, bias=False)
        self.k, self.v = nn.Linear(WIDTH, 2 * HEAD, bias=False), nn.Linear(WIDTH, 2 * HEAD, bias=False)
        self.o = nn.Linear(WIDTH, WIDTH, bias=False)
        self.gate, self.up = nn.Linear(WIDTH, 704, bias=False), nn.Linear(WIDTH, 704, bias=False)
        self.down = nn.Linear(704, WIDTH, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shape = (*x.shape[:2], -1, HEAD)
        y = self.norms[0](x)
        q, k, v = (part(y).view(shape).transpose(1, 2) for part in (self.q, self.k, self.v))
        mixed = functional.scaled_dot_product_attention(
            rotate(q), rotate(k), v, is_causal=True, enable_gqa=True
        )
        x = x + self.o(mixed.transpose(1, 2).reshape(x.shape).contiguous())
        y = self.norms[1](x)
        return x + self.down(functional.silu(self.gate(y)) * self.up(y))


class Gpt2Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(2))
        self.qkv, self.o = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = self.qkv(self.norms[0](x)).split(WIDTH, dim=2)
        q, k, v = (part.view(*x.shape[:2], -1, HEAD).transpose(1, 2) for part in parts)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.dropout(self.o(mixed.transpose(1, 2).reshape(x.shape).contiguous()))
        y = self.up(self.norms[1](x))
        y = 0.5 * y * (1.0 + torch.tanh(0.79788 * (y + 0.044715 * torch.pow(y, 3.0))))
        return x + self.dropout(self.down(y))


class Stack(nn.Module):
    """Three blocks between an embedding and an output layer with its loss."""

    def __init__(self, block: type[nn.Module], norm: type[nn.Module]) -> None:
        super().__init__()
        self.embed = nn.Embedding(1000, WIDTH)
        self.layers = nn.ModuleList(block() for _ in range(3))
        self.norm = norm(WIDTH) if norm is nn.LayerNorm else norm()
        self.head = nn.Linear(WIDTH, 1000, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens)
        for layer in self.layers:
            x = layer(x)
        logits = self.head(self.norm(x)).float()
        return functional.cross_entropy(logits.flatten(0, 1), tokens.flatten())


def llama(micro_batch: int, seq_length: int) -> tuple[nn.Module, tuple[torch.Tensor]]:
    return Stack(LlamaBlock, RmsNorm), (torch.zeros(micro_batch, seq_length, dtype=torch.long),)


def gpt2(micro_batch: int, seq_length: int) -> tuple[nn.Module, tuple[torch.Tensor]]:
    return Stack(Gpt2Block, nn.LayerNorm), (torch.zeros(micro_batch, seq_length, dtype=torch.long),)
