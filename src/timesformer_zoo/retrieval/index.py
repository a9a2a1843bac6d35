"""Which rows of a library are nearest: all of them looked at, or an index that looks at few.

Legend: N rows, D features.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from timesformer_zoo.writing import whole_file

if TYPE_CHECKING:
    from timesformer_zoo.retrieval.library import Library

__all__ = ["INDEXES", "Ranked", "best", "index_file"]

_CHUNK = 8192  # rows that are float32 at once: what fits a core's cache
_PIECE = 1 << 16  # rows that go into an index at once
_WIDE = 128  # rows that an index looks at, at least, for each that is added or asked for
_MORE = 4  # times as many as are asked for are taken from an index, whose own order is that of rounded features
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


def usearch(library: Library) -> Ask:
    """A graph of neighbours (HNSW) of 8-bit features, on the disk and mapped; what it finds is measured exactly.

    Malkov and Yashunin, "Efficient and robust approximate nearest neighbor search using Hierarchical Navigable Small
    World graphs", TPAMI 2018, arXiv 1603.09320.
    """
    from usearch.index import Index

    path = index_file(library, "usearch")
    if not path.exists():
        index = Index(ndim=library.width, metric="cos", dtype="i8", expansion_add=_WIDE)
        first = 0
        for part in library.parts:
            for piece, norms in zip(part.features.split(_PIECE), part.norms.split(_PIECE), strict=True):
                unit = piece.float() / norms.clamp(min=1e-12)[:, None]
                if len(unit):
                    index.add(np.arange(first, first + len(unit)), unit.numpy())
                first += len(unit)
        for old in library.folder.glob("index-usearch-*"):  # of what the library was before
            with suppress(OSError):
                old.unlink()
        with whole_file(path, index.serialized_length) as partial:
            index.save(str(partial))
    index = Index.restore(str(path), view=True)
    index.expansion_search = _WIDE

    def ask(query: torch.Tensor, count: int, one_per_video: bool) -> Ranked:
        rows = index.search(query.numpy(), min(max(_MORE * count, _WIDE), len(library))).keys.astype(np.int64)
        return Ranked(rows, library.cosines(query, rows))

    return ask


def index_file(library: Library, name: str) -> Path:
    """Where an index is kept: under another name when the library's rows are others."""
    rows = " ".join(part.path.name for part in library.parts)
    return library.folder / f"index-{name}-{hashlib.blake2b(rows.encode(), digest_size=8).hexdigest()}"


INDEXES: Mapping[str, Callable[[Library], Ask]] = {"exact": exact, "usearch": usearch}
"""Each by the name that `--index` takes."""
