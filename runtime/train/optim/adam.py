"""Adam as a script makes it with the parameters of DeepSpeed's, on PyTorch's fused kernels."""

from __future__ import annotations

from typing import Any

import torch

from runtime.errors import BadInput

_MANY_STEPS = 2.0**30


class Adam(torch.optim.Adam):
    """Adam and AdamW with an optional correction of the moments' bias (Kingma and Ba, 2014, algorithm 1).

    Args:
        decoupled: AdamW's weight decay, in place of Adam's L2.
        bias_correction: without it, it is as if so many steps were taken before that none is left.
    """

    def __init__(self, params: Any, *, decoupled: bool, bias_correction: bool, **options: Any) -> None:
        super().__init__(params, decoupled_weight_decay=decoupled, fused=True, **options)
        self._corrects = bias_correction

    def _init_group(self, group: dict[str, Any], *lists: Any) -> Any:
        found = super()._init_group(group, *lists)  # type: ignore[no-untyped-call]
        if not self._corrects:
            for step in lists[-1]:
                step.fill_(_MANY_STEPS)
        return found


class FusedAdam(Adam):
    """DeepSpeed's FusedAdam by its parameters: decoupled weight decay unless `adam_w_mode` is false."""

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        bias_correction: bool = True,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        adam_w_mode: bool = True,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        set_grad_none: bool = True,
    ) -> None:
        _refuse_amsgrad("FusedAdam", amsgrad)
        super().__init__(
            params,
            decoupled=adam_w_mode,
            bias_correction=bias_correction,
            lr=lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
        )


class DeepSpeedCPUAdam(Adam):
    """DeepSpeed's Adam for states in host memory by its parameters; it runs where the parameters are."""

    def __init__(
        self,
        model_params: Any,
        lr: float = 1e-3,
        bias_correction: bool = True,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        adamw_mode: bool = True,
        fp32_optimizer_states: bool = True,
    ) -> None:
        _refuse_amsgrad("DeepSpeedCPUAdam", amsgrad)
        if not fp32_optimizer_states:
            raise BadInput(
                "make a DeepSpeedCPUAdam",
                found="fp32_optimizer_states=False, while states stay in fp32 here",
                fix="Leave it out.",
            )
        super().__init__(
            model_params,
            decoupled=adamw_mode,
            bias_correction=bias_correction,
            lr=lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
        )


class DeepSpeedCPUAdagrad(torch.optim.Adagrad):
    """DeepSpeed's Adagrad by its parameters."""

    def __init__(
        self,
        model_params: Any,
        lr: float = 1e-2,
        eps: float = 1e-10,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        fp32_optimizer_states: bool = True,
    ) -> None:
        super().__init__(model_params, lr=lr, eps=eps, weight_decay=weight_decay)


def _refuse_amsgrad(name: str, amsgrad: bool) -> None:
    if amsgrad:
        raise BadInput(
            f"make a {name}", found="amsgrad=True, which DeepSpeed refuses too", fix="Leave it out."
        )
