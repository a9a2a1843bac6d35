"""Which rows of a library are nearest: all of them looked at, or an index that looks at few.

Legend: N rows, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

if TYPE_CHECKING:
    from timesformer_zoo.retrieval.library import Library

__all__ = ["INDEXES", "Ranked", "best"]

_CHUNK = 8192  # rows that are float32 at once: what fits a core's cache
_EQUAL = 1e-6  # cosines this close are taken as equal: sums of float32 in another order differ as much

Array = np.ndarray[Any, Any]


class Ranked(NamedTuple):
    """Rows and their cosines, the largest first."""

    rows: Array
    similarities: Array


Ask = Callable[[torch.Tensor, int, bool], Ranked]  # unit vector (D,), how many, one a video -> at least these


def best(rows: Array, similarities: Array, count: int, videos: Array | None = None) -> Ranked:
    """The largest of some, of equal ones the first row; with `videos`, which each row is of, one of each."""
    order = np.lexsort((rows, -np.round(similarities / _EQUAL)))
    if videos is not None:
        _, firsts = np.unique(videos[order], return_index=True)
        order = order[np.sort(firsts)]
    order = order[:count]
    return Ranked(rows[order], similarities[order])


def exact(library: Library) -> Ask:
    """Every row, by a matrix product in pieces."""

    def ask(query: torch.Tensor, count: int, one_per_video: bool) -> Ranked:
        found = []
        for part in library.parts:
            for first in range(0, len(part.features), _CHUNK):
                piece = part.features[first : first + _CHUNK]
                found.append((piece.float() @ query) / part.norms[first : first + _CHUNK].clamp(min=1e-12))
        cosines = torch.cat(found)
        rows = torch.arange(len(cosines))
        if one_per_video:  # each one's largest, and all rows that are as large
            top = torch.full((len(library.videos),), -2.0).scatter_reduce_(0, library.video, cosines, "amax")
            keep = cosines >= top[library.video] - _EQUAL
            least = top.topk(min(count, len(top))).values[-1]
        else:
            keep = torch.ones_like(cosines, dtype=torch.bool)
            least = cosines.topk(min(count, len(cosines))).values[-1]
        keep &= cosines >= least - _EQUAL
        return Ranked(rows[keep].numpy(), cosines[keep].numpy())

    return ask


INDEXES: Mapping[str, Callable[[Library], Ask]] = {"exact": exact}
"""Each by the name that `--index` takes."""
