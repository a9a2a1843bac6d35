"""Random numbers for batches: one generator on one device, and the few distributions that the data is made of."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


class Draw:
    """Random tensors on a device, the same for the same seed (on one device and version of torch)."""

    def __init__(self, seed: int, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.generator = torch.Generator(self.device).manual_seed(seed)

    def rand(self, *shape: int) -> Tensor:
        """Uniform in [0, 1)."""
        return torch.rand(*shape, generator=self.generator, device=self.device)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator, device=self.device)

    def between(self, low: float, high: float, *shape: int) -> Tensor:
        """Uniform."""
        return low + (high - low) * self.rand(*shape)

    def log_between(self, low: float, high: float, *shape: int) -> Tensor:
        """Log-uniform: each doubling is equally likely."""
        return low * (self.rand(*shape) * math.log(high / low)).exp()

    def chance(self, share: float | Tensor, *shape: int) -> Tensor:
        """True for about this share."""
        return self.rand(*shape) < share

    def sign(self, *shape: int) -> Tensor:
        """-1 or 1."""
        return 1 - 2 * (self.rand(*shape) < 0.5).float()

    def whole(self, n: int, *shape: int) -> Tensor:
        """Whole numbers 0 to n - 1."""
        return torch.randint(n, shape, generator=self.generator, device=self.device)

    def choice(self, weights: Sequence[float], n: int) -> Tensor:
        """n indices, with these relative weights."""
        edges = torch.tensor(weights, device=self.device).cumsum(0)
        return torch.bucketize(self.rand(n) * edges[-1], edges[:-1], right=True)

    def pick(self, chances: Tensor, n: int) -> Tensor:
        """n indices, by (M,) chances that are above 0."""
        return torch.multinomial(chances, n, replacement=True, generator=self.generator)

    def rows(self, total: int, n: int) -> Tensor:
        """n different ones of `total` rows."""
        return torch.randperm(total, generator=self.generator, device=self.device)[:n]
