"""Stochastic depth that draws for each clip by itself.

timm's `DropPath` draws for a batch, so what a clip gets depends on how many others are in it: on the number of
processes, on micro-batches, on videos that were skipped. Here it follows from a seed of the clip, as all other random
choices about it do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from timm.layers import DropPath

from timesformer_zoo.model.timesformer import TimeSformer

__all__ = ["ClipDraws"]


class ClipDraws:
    """Makes every drop path of a model draw by clip within `of`; elsewhere they are as they were.

    Args:
        model: changed in place.
    """

    def __init__(self, model: TimeSformer) -> None:
        self.uniform: torch.Tensor | None = None  # (B, drop paths, rows), from 0 to 1
        self.rows = model.num_frames if model.per_frame else 1  # of a clip in the blocks
        self.count = 0
        for parent in list(model.modules()):
            for name, child in parent.named_children():
                if isinstance(child, DropPath) and child.drop_prob:
                    setattr(parent, name, _ClipDropPath(child, self, self.count))
                    self.count += 1

    @contextmanager
    def of(self, seeds: Sequence[int], device: torch.device) -> Iterator[None]:
        """For a micro-batch, forward and backward: one seed a clip."""
        if self.count and seeds:
            size = (self.count, self.rows)
            drawn = [torch.rand(size, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
            self.uniform = torch.stack(drawn).to(device)
        try:
            yield
        finally:
            self.uniform = None


class _ClipDropPath(DropPath):  # type: ignore[misc]  # timm is untyped
    """The `number`-th drop path of a model."""

    def __init__(self, plain: DropPath, draws: ClipDraws, number: int) -> None:
        super().__init__(plain.drop_prob, plain.scale_by_keep)
        self.draws = draws
        self.number = number

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B rows, …) -> the same; each row is dropped, or scaled up by as much as is dropped on average."""
        uniform = self.draws.uniform
        if uniform is None or not self.training:
            return super().forward(x)
        keep = 1 - self.drop_prob
        # Where frames run as clips of their own, a clip is several rows, and each draws.
        kept = uniform[:, self.number].flatten() < keep
        factor = kept.to(x.dtype) / (keep if self.scale_by_keep else 1)
        return x * factor.view(-1, *[1] * (x.ndim - 1))
