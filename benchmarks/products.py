"""The matrix products that a model is made of: how many operations they are, and how fast this machine does them.

Legend: B batch, S tokens of a group, D width, H heads, d = D / H.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from measuring import seconds
from peers import Case, create
from torch.overrides import TorchFunctionMode

from timesformer_zoo.model.block import AttentionStep

__all__ = ["Product", "Replay", "count", "expected_seconds", "operations"]

MOST_ELEMENTS = 2**26  # of one replayed product's largest tensor; more of them are replayed in part and scaled up


@dataclass(frozen=True)
class Product:
    """`batch` products of (rows, inner) with (inner, columns)."""

    rows: int
    inner: int
    columns: int
    batch: int = 1
    linear: bool = True  # of a linear layer; else of attention

    @property
    def operations(self) -> int:
        """Multiplications and additions."""
        return 2 * self.batch * self.rows * self.inner * self.columns


class _Watch(TorchFunctionMode):
    """Counts the products that pass by, whoever calls them."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[Product] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is F.linear:
            x, weight = args[:2]
            self.found[Product(x.numel() // x.shape[-1], x.shape[-1], len(weight))] += 1
        elif func is F.conv2d:
            weight = args[1]
            self.found[Product(out.numel() // out.shape[1], weight[0].numel(), len(weight))] += 1
        elif func is F.scaled_dot_product_attention:
            q, k = args[:2]
            groups, heads, queries, d = q.shape
            self.found[Product(queries, d, k.shape[2], groups * heads, False)] += 1  # queries with keys
            self.found[Product(queries, k.shape[2], d, groups * heads, False)] += 1  # weights with values
        return out


@lru_cache
def count(case: Case, fused: bool = True) -> Counter[Product]:
    """Every product of our model's forward pass and how often it occurs."""
    model = create(case, "meta").eval()
    for module in model.modules():
        if fused and isinstance(module, AttentionStep):
            module.fc = None
    x = torch.empty(case.batch, 3, case.frames, case.size, case.size, device="meta")
    with torch.inference_mode(), _Watch() as watch:
        model(x)
    return watch.found


def operations(case: Case, fused: bool = True) -> int:
    """Multiplications and additions of the forward pass, in matrix products (the rest is below 1 %)."""
    return sum(product.operations * times for product, times in count(case, fused).items())


class Replay:
    """A model's products alone, on random numbers: linear layers by F.linear, attention's by torch.bmm.

    Each distinct product is timed once a turn and multiplied by how often the model has it.
    """

    def __init__(self, case: Case, device: str = "cpu") -> None:
        self.device, self.dtype = device, case.dtype
        self.parts = [(product, *self._prepare(product, times)) for product, times in count(case).items()]
        self.linear_operations = sum(p.operations * n for p, n in count(case).items() if p.linear)
        self.turn()  # warm-up

    def _prepare(self, product: Product, times: int) -> tuple[Callable[[], torch.Tensor], float]:
        def random(*shape: int) -> torch.Tensor:
            return torch.randn(shape, device=self.device, dtype=self.dtype)

        rows, inner, columns = product.rows, product.inner, product.columns
        if product.linear:
            x, weight, bias = random(rows, inner), random(columns, inner), random(columns)
            return lambda: F.linear(x, weight, bias), times
        batch = min(product.batch, max(1, MOST_ELEMENTS // (rows * max(inner, columns))))
        a, b = random(batch, rows, inner), random(batch, inner, columns)
        return lambda: torch.bmm(a, b), times * product.batch / batch

    @torch.inference_mode()
    def turn(self) -> tuple[float, float]:
        """Seconds of all linear layers, and of all products, in the number the model has of each."""
        linear = everything = 0.0
        for product, function, times in self.parts:
            taken = seconds(function, self.device) * times
            everything += taken
            linear += taken if product.linear else 0.0
        return linear, everything


def expected_seconds(case: Case, share: float = 0.8) -> float:
    """A guess of a forward pass's time on this CPU, at a share of the rate of a medium-sized product."""
    return operations(case) / _rate() / share


@lru_cache
def _rate() -> float:
    """Operations a second of a medium-sized product, now."""
    x, weight = torch.randn(1024, 768), torch.randn(3072, 768)
    F.linear(x, weight)
    taken = min(seconds(lambda: F.linear(x, weight)) for _ in range(5))
    return Product(1024, 768, 3072).operations / taken
