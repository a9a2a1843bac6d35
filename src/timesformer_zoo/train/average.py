"""The average of the weights over the steps of a run, also where they are sharded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from timesformer_zoo.train.distributed import weights_of

__all__ = ["WeightAverage"]


class WeightAverage:
    """Exponential moving average of a model's weights; each process has that of its own shards.

    The decay grows with the steps, as timm's `ModelEmaV3(use_warmup=True)` has it, whose values these are. That one
    copies the module, which cannot be done with a sharded one.

    Args:
        model: as accelerate prepared it.
        decay: the largest.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = model
        self.decay = decay
        self.weights = {name: w.detach().clone() for name, w in weights_of(model).items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the model's weights after so many optimizer steps, from 1."""
        decay = min(self.decay, 1 - step ** (-2 / 3))
        torch._foreach_lerp_(*self._pairs(), 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The model has the average as its weights, and then its own again."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for mine, its in zip(*self._pairs(), strict=True):
            own = its.clone()
            its.copy_(mine)
            mine.copy_(own)

    def _pairs(self) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        weights = weights_of(self.model)
        return [_local(self.weights[name]) for name in weights], [_local(w) for w in weights.values()]


def _local(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
