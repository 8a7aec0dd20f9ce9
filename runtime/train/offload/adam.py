"""Adam and AdamW whose moments are in files: sub-group by sub-group, read ahead and written behind."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any

import torch

from runtime.train.config.training import Adam
from runtime.train.offload.files import StateFile, Transfer, Transfers, page_aligned
from runtime.train.offload.layout import ELEMENT_BYTES, Layout, SubGroup, lay_out
from runtime.train.offload.shards import like, local

MOMENTS = ("exp_avg", "exp_avg_sq")


class DiskStates(MutableMapping[torch.Tensor, dict[str, Any]]):
    """What `optimizer.state` is elsewhere: step count and moments of each parameter that took a step.

    Moments that are read from it are mapped from their files and change with them; what is assigned to it is
    copied into the files.
    """

    def __init__(self, parameters: list[torch.Tensor], layout: Layout, folder: Path) -> None:
        self.parameters = parameters
        self.steps = [torch.zeros(()) for _ in parameters]
        self.files = {kind: StateFile(folder, layout.total * ELEMENT_BYTES) for kind in MOMENTS}
        self._layout = layout
        self._index = {parameter: index for index, parameter in enumerate(parameters)}
        self._maps: dict[str, torch.Tensor] = {}

    def __getitem__(self, parameter: torch.Tensor) -> dict[str, Any]:
        index = self._index[parameter]
        if not self.steps[index]:
            raise KeyError(parameter)
        moments = {kind: like(parameter, self._mapped(kind, index)) for kind in MOMENTS}
        return {"step": self.steps[index], **moments}

    def __setitem__(self, parameter: torch.Tensor, state: dict[str, Any]) -> None:
        index = self._index[parameter]
        self.steps[index].copy_(torch.as_tensor(state["step"]))
        for kind in MOMENTS:
            self._mapped(kind, index).copy_(local(state[kind]).flatten())

    def __delitem__(self, parameter: torch.Tensor) -> None:
        index = self._index[parameter]
        self.steps[index].zero_()
        for kind in MOMENTS:
            self._mapped(kind, index).zero_()

    def __iter__(self) -> Iterator[torch.Tensor]:
        return (p for p, step in zip(self.parameters, self.steps, strict=True) if step)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _mapped(self, kind: str, index: int) -> torch.Tensor:
        if kind not in self._maps:
            self._maps[kind] = self.files[kind].mapped().view(torch.float32)
        start = self._layout.offsets[index]
        return self._maps[kind][start : start + self._layout.sizes[index]]


class DiskAdam(torch.optim.Adam):
    """PyTorch's fused Adam, fed from files; equal to it bit by bit on the same sub-groups.

    Args:
        groups: parameter groups whose parameters' shards are fp32 and in host memory.
        sub_group_size: elements updated at a time.
        buffer_count: sub-groups in memory at a time; each takes 8 bytes an element.
    """

    of_shards = True  # it keeps its states by the parameters that it was made with

    def __init__(
        self,
        groups: list[dict[str, Any]],
        config: Adam,
        *,
        folder: Path,
        sub_group_size: int,
        buffer_count: int,
        transfers: Transfers,
    ) -> None:
        params = config.params
        super().__init__(
            groups,
            lr=params.lr,
            betas=params.betas,
            eps=params.eps,
            weight_decay=params.weight_decay,
            fused=True,
        )
        self._decoupled = config.type == "AdamW" or params.adam_w_mode
        for group in self.param_groups:  # a plain AdamW that loads our checkpoint believes it
            if "decoupled_weight_decay" in group:
                group["decoupled_weight_decay"] = self._decoupled
        listed = [p for group in self.param_groups for p in group["params"]]
        self._group_of = [i for i, group in enumerate(self.param_groups) for _ in group["params"]]
        self._layout = lay_out([local(p).numel() for p in listed], sub_group_size)
        self._disk = DiskStates(listed, self._layout, folder)
        self._transfers = transfers
        weakref.finalize(self, transfers.close)
        count = min(buffer_count, len(self._layout.groups))
        size = self._layout.largest * ELEMENT_BYTES
        self._buffers = [{kind: page_aligned(size) for kind in MOMENTS} for _ in range(count)]

    @property  # type: ignore[override]
    def state(self) -> DiskStates:
        """Step counts and moments, from the files."""
        return self._disk

    @state.setter
    def state(self, states: MutableMapping[torch.Tensor, dict[str, Any]]) -> None:
        for parameter, state in states.items():  # empty while the base class is made
            self._disk[parameter] = state

    def __setstate__(self, values: dict[str, Any]) -> None:
        values = dict(values)
        self.state = values.pop("state", {})
        self.__dict__.update(values)

    @property
    def bytes_on_disk(self) -> int:
        """What this rank's moments take."""
        return sum(file.size for file in self._disk.files.values())

    @property
    def direct(self) -> bool:
        """Whether the moments pass the page cache."""
        return all(file.direct for file in self._disk.files.values())

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Updates every parameter that has a gradient.

        Raises:
            OffloadFailed: the disk refused; parameters of sub-groups before it are updated already.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        trained = [p.grad is not None for p in self._disk.parameters]
        for step, has_gradient in zip(self._disk.steps, trained, strict=True):
            step += int(has_gradient)
        self._run([g for g in self._layout.groups if any(trained[part.index] for part in g.parts)])
        return loss

    def _run(self, groups: list[SubGroup]) -> None:
        """Half of the buffers are read ahead, the others are being written."""
        reads: list[list[Transfer]] = []
        writes: list[list[Transfer]] = []
        try:
            for number, group in enumerate(groups):
                while len(reads) <= min(number + len(self._buffers) // 2, len(groups) - 1):
                    following = len(reads)
                    if following >= len(self._buffers):
                        _wait(writes[following - len(self._buffers)])
                    reads.append(self._begin(self._transfers.read, groups[following], following))
                _wait(reads[number])
                self._update(group, self._buffers[number % len(self._buffers)])
                writes.append(self._begin(self._transfers.write, group, number))
        finally:
            for transfers in (*reads, *writes):
                for transfer in transfers:
                    transfer.settle()
        for transfers in writes:
            _wait(transfers)

    def _begin(self, start: Callable[..., Transfer], group: SubGroup, number: int) -> list[Transfer]:
        buffers = self._buffers[number % len(self._buffers)]
        size, offset = group.length * ELEMENT_BYTES, group.start * ELEMENT_BYTES
        return [start(self._disk.files[kind], buffers[kind][:size], offset) for kind in MOMENTS]

    def _update(self, group: SubGroup, buffers: dict[str, memoryview]) -> None:
        moments = [torch.frombuffer(buffers[kind], dtype=torch.float32) for kind in MOMENTS]
        for number, options in enumerate(self.param_groups):
            columns: list[list[torch.Tensor]] = [[], [], [], [], []]
            for part in group.parts:
                parameter = self._disk.parameters[part.index]
                if self._group_of[part.index] != number or parameter.grad is None:
                    continue
                inside = slice(part.start, part.start + part.length)
                columns[0].append(local(parameter).view(-1)[inside])
                columns[1].append(local(parameter.grad).reshape(-1)[inside])
                columns[2].append(moments[0][part.place : part.place + part.length])
                columns[3].append(moments[1][part.place : part.place + part.length])
                columns[4].append(self._disk.steps[part.index])
            if columns[0]:
                _fused(columns, options, decoupled=self._decoupled)


def _wait(transfers: list[Transfer]) -> None:
    for transfer in transfers:
        transfer.wait()


def _fused(columns: list[list[torch.Tensor]], options: dict[str, Any], *, decoupled: bool) -> None:
    parameters, gradients, averages, squares, steps = columns
    update = torch._fused_adamw_ if decoupled else torch._fused_adam_
    update(
        parameters,
        gradients,
        averages,
        squares,
        [],
        steps,
        lr=float(options["lr"]),
        beta1=options["betas"][0],
        beta2=options["betas"][1],
        weight_decay=options["weight_decay"],
        eps=options["eps"],
        amsgrad=False,
        maximize=False,
    )
