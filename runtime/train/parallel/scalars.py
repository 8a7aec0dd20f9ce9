"""Parameters without a dimension, such as CLIP's logit_scale: every rank holds one that is the same.

FSDP2 shards a parameter along its first dimension. It is handed as many copies of the number as there are
ranks, one for each; in a forward the first one stands for the whole, without a dimension. In a backward each
rank gets the sum of all gradients, as for every other parameter. Sums that two ranks have of the same numbers
may differ in their last digit; `agree` makes rank 0's everybody's, so that the copies stay the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp._fully_shard._fsdp_param import FSDPParam
from torch.distributed.tensor import DTensor, Replicate
from torch.distributed.tensor._dtensor_spec import DTensorSpec, TensorMeta

Place = tuple[int, str]  # the identity of a module, and the name of a parameter in it


class Scalar(FSDPParam):
    """FSDP2's record of such a parameter: a copy on each rank, which is gathered as a shard is."""

    def _get_grad_inner_tensor(self, grad: torch.Tensor) -> torch.Tensor:
        """The gradient for each rank's copy."""
        inner: torch.Tensor = super()._get_grad_inner_tensor(grad)
        return inner.expand(_shards(self._sharding_spec.mesh)).contiguous()

    def reset_sharded_param(self) -> None:
        """Takes note of what `load_state_dict` or a move to another device has put in the shard's place."""
        self.sharded_param = getattr(self._module_info.module, self._module_info.param_name)
        assert isinstance(self.sharded_param, DTensor)
        held = self.sharded_param._local_tensor
        if not held.is_meta:
            if self.pin_memory and not held.is_pinned():
                held = held.cpu().pin_memory()
                self.sharded_param._local_tensor = held
            self._sharded_param_data = held.view(-1)
        self._sharding_spec = self.sharded_param._spec


def widen(model: nn.Module, mesh: DeviceMesh) -> set[Place]:
    """Puts copies, in one dimension, in the place of parameters that have none; tied ones stay tied."""
    made: dict[int, nn.Parameter] = {}
    places = set()
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None and parameter.ndim == 0:
                if id(parameter) not in made:
                    copies = parameter.detach().expand(_shards(mesh)).clone()
                    made[id(parameter)] = nn.Parameter(copies, parameter.requires_grad)
                module._parameters[name] = made[id(parameter)]
                places.add((id(module), name))
    return places


def narrow(parameters: Iterable[Any], widened: set[Place]) -> None:
    """Makes FSDP2's records of widened parameters those of parameters without a dimension."""
    for parameter in parameters:
        info = parameter._module_info
        if (id(info.module), info.param_name) not in widened:
            continue
        parameter.__class__ = Scalar
        parameter._orig_size = parameter.sharded_size = torch.Size()
        parameter._contiguous_orig_stride = parameter.contiguous_sharded_stride = ()
        mesh, dtype = parameter._sharding_spec.mesh, parameter.sharded_param.dtype
        meta = TensorMeta(torch.Size(), (), dtype)
        parameter._sharding_spec = DTensorSpec(mesh, (Replicate(),) * mesh.ndim, tensor_meta=meta)
        parameter._spmd_placements = parameter._sharding_spec.placements
        copy = parameter.to_sharded_dtensor(parameter._sharded_param_data.view(()))
        parameter.sharded_param = nn.Parameter(copy, parameter.sharded_param.requires_grad)
        parameter._setattr_on_modules(parameter.sharded_param)


def is_scalar(parameter: object) -> bool:
    """Whether every rank holds all of a parameter of a sharded model, since it has no dimension."""
    return isinstance(parameter, DTensor) and parameter.ndim == 0


def _shards(mesh: DeviceMesh) -> int:
    return mesh.size(mesh.ndim - 1)
