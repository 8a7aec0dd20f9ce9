"""What the recorded checkpoints were trained on: small, with all that an import must not lose."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

WORDS, WIDTH, HIDDEN, SEED, STEPS, RANKS = 7, 4, 5, 5, 3, 2


class Layer(nn.Module):
    """Sizes that two ranks cannot divide, one matrix that is not trained, a buffer that is counted."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(WIDTH, HIDDEN)
        self.down = nn.Linear(HIDDEN, WIDTH)
        self.fixed = nn.Linear(WIDTH, WIDTH, bias=False).requires_grad_(False)
        self.register_buffer("calls", torch.tensor(0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.calls += 1
        return x + self.down(torch.tanh(self.up(self.fixed(x))))


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, WIDTH)
        self.layers = nn.ModuleList(Layer() for _ in range(2))
        self.head = nn.Linear(WIDTH, WORDS, bias=False)
        self.head.weight = self.embed.weight  # tied

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens[:, :-1])
        for layer in self.layers:
            x = layer(x)
        return functional.cross_entropy(self.head(x).flatten(0, 1).float(), tokens[:, 1:].flatten())


def groups(model: nn.Module) -> list[dict[str, Any]]:
    """Weights decay, biases do not."""
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    return [
        {"params": [p for name, p in trained.items() if "bias" not in name], "weight_decay": 0.1},
        {"params": [p for name, p in trained.items() if "bias" in name], "weight_decay": 0.0},
    ]


def batch(step: int, rank: int) -> torch.Tensor:
    """The tokens of one rank in one step."""
    generator = torch.Generator().manual_seed(100 * step + rank)
    return torch.randint(0, WORDS, (2, 6), generator=generator)


def config_for(stage: int, **changes: Any) -> dict[str, Any]:
    """Sub-groups so small that stage 3 has several."""
    return {
        "train_batch_size": 2 * RANKS,
        "gradient_clipping": 0.5,
        "zero_optimization": {"stage": stage, "sub_group_size": 40},
        "optimizer": {"type": "AdamW", "params": {"lr": 0.01, "weight_decay": 0.1, "torch_adam": True}},
        "scheduler": {"type": "WarmupLR", "params": {"warmup_max_lr": 0.01, "warmup_num_steps": 5}},
        **changes,
    }


FP16 = {"fp16": {"enabled": True, "initial_scale_power": 8, "loss_scale_window": 2}}
VARIANTS: dict[str, tuple[int, dict[str, Any]]] = {
    "zero1": (1, {}),
    "zero2": (2, {}),
    "zero3": (3, {}),
    "zero1_bf16": (1, {"bf16": {"enabled": True}}),
    "zero2_fp16": (2, FP16),
    "zero3_bf16": (3, {"bf16": {"enabled": True}}),
}
