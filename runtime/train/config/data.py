"""The block `data_efficiency`: of it, batches by tokens."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict

from runtime.train.config.fields import Block, Whole, key

_NOT_HERE = "it is not implemented here"
_LOADER = "the loader reads in the training's process"


class Absent(Block):
    """A feature that would change the training: accepted only while it is off."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)
    enabled: bool = key(False, "switch it on", only=_NOT_HERE)


class DynamicBatching(Block):
    """Micro-batches of training_data by their tokens, not by a number of samples."""

    enabled: bool = key(False, "fill micro-batches of training_data up to max_tokens")
    max_tokens: Whole | None = key(
        None, "tokens of a rank's micro-batch at most, its padding included: samples x longest", ge=1
    )
    min_batch_size: Whole = key(1, "samples of a micro-batch at least", ge=1)
    max_batch_size: Whole | None = key(None, "samples of a micro-batch at most", ge=1)
    sequence_picking_order: Literal["dataloader", "random", "seqlen"] = key(
        "dataloader",
        "dataloader: the dataset's order; random: another in each epoch; seqlen: samples of like length "
        "together, the micro-batches in another order in each epoch",
    )
    lr_scaling_method: Literal["linear", "sqrt", "none"] = key(
        "none",
        "how the learning rate follows the number of samples; the peer's default is linear",
        only="the learning rate is the schedule's here",
    )
    metrics_path: str | None = key(
        None, "the peer's table of lengths", idle="lengths are the dataset's, or counted"
    )
    verbose: bool = key(False, "print every batch", idle="nothing is printed")


class DataSampling(Block):
    """How training_data is sampled."""

    enabled: bool = key(False, "switch the block on")
    dynamic_batching: DynamicBatching = key(DynamicBatching(), "micro-batches by tokens")
    curriculum_learning: Absent = key(Absent(), "curriculum")
    num_epochs: Whole = key(1000, "epochs", ge=1, idle="the loader goes on as long as it is asked")
    num_workers: Whole = key(0, "processes that read", ge=0, idle=_LOADER)
    pin_memory: bool = key(False, "page-locked batches", idle=_LOADER)


class DataEfficiency(Block):
    """The peer's data pipeline."""

    enabled: bool = key(False, "switch the block on")
    seed: Whole = key(1234, "its seed", ge=0, idle="the key seed at the top orders training_data")
    data_sampling: DataSampling = key(DataSampling(), "sampling")
    data_routing: Absent = key(Absent(), "token dropping")

    @property
    def token_batches(self) -> DynamicBatching | None:
        """The settings of batches by tokens, where the blocks around them are on, too."""
        chosen = self.data_sampling.dynamic_batching
        return chosen if self.enabled and self.data_sampling.enabled and chosen.enabled else None
