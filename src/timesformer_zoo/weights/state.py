"""A state dict that knows what of its file it is without."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

import torch

__all__ = ["Weights", "in_words"]


class Weights(dict[str, torch.Tensor]):
    """A state dict, and the names of what its file has beside it: known, and not the video model's.

    Pickles as an OrderedDict, which `torch.load` takes for plain.
    """

    left_out: tuple[str, ...]
    """Keys of the file (text towers, projections, a second head), and entries that hold other weights ("student")."""

    def __init__(self, tensors: Mapping[str, torch.Tensor], left_out: Iterable[str] = ()) -> None:
        super().__init__(tensors)
        self.left_out = tuple(left_out)

    def __reduce__(self) -> tuple[Any, ...]:
        return OrderedDict, (), None, None, iter(self.items())


def in_words(left_out: Iterable[str]) -> str:
    """Names by what they begin with: "text_model.* (101), txt_proj.* (2), temp"."""
    counted = Counter(f"{first}.*" if rest else first for first, _, rest in (name.partition(".") for name in left_out))
    return ", ".join(f"{name} ({count})" if count > 1 else name for name, count in counted.items())
