"""Which rows of a library are nearest: all of them looked at, or an index that looks at few.

Legend: N rows, D features.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import torch

from timesformer_zoo.writing import whole_file

if TYPE_CHECKING:
    from timesformer_zoo.retrieval.library import Library

__all__ = ["INDEXES", "Ranked", "best", "index_file"]

_CHUNK = 512  # rows that are float32 at once: what a core's cache holds
_PIECE = 1 << 16  # rows that go into an index at once
_CENTRES, _ROWS = 1024, 1000  # of faiss: lists at most, and rows of one at least
_LISTS = 64  # that are looked through
_MORE, _LEAST = 4, 64  # times as many as are asked for come from an index, whose own order is that of 8 bits; at least
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
        cosines, first = torch.empty(len(library)), 0
        floats = torch.empty(
            _CHUNK, library.width
        )  # one for all: memory that is new each time costs more than products
        for part in library.parts:
            here = cosines[first : first + len(part.features)]
            for piece, out in zip(part.features.split(_CHUNK), here.split(_CHUNK), strict=True):
                torch.mv(floats[: len(piece)].copy_(piece), query, out=out)
            here /= part.norms.clamp(min=1e-12)
            first += len(here)
        if one_per_video:  # each one's largest, and all rows that are as large
            top = torch.full((len(library.videos),), -2.0).scatter_reduce_(0, library.video, cosines, "amax")
            least = top.topk(min(count, len(top))).values[-1]
            keep = (cosines >= least - _EQUAL) & (cosines >= top[library.video] - _EQUAL)
        else:
            keep = cosines >= cosines.topk(min(count, len(cosines))).values[-1] - _EQUAL
        rows = keep.nonzero().flatten()
        return Ranked(rows.numpy(), cosines[rows].numpy())

    return ask


def unit_pieces(library: Library, size: int) -> Iterator[Array]:
    """All features, of length 1, (at most `size`, D) float32 at a time."""
    for part in library.parts:
        for first in range(0, len(part.features), size):
            norms = part.norms[first : first + size, None].clamp(min=1e-12)
            yield (part.features[first : first + size].float() / norms).numpy()


class Index(Protocol):
    """What looks at few rows only, and is kept as a file."""

    def build(self, library: Library, path: Path) -> None:
        """Make the file."""

    def open(self, path: Path) -> Callable[[Array, int], Array]:
        """Map it: a function from a unit vector (1, D) and how many to rows, the nearest first, more or less."""


class Faiss:
    """Lists of rows around centres, 8 bits a number, of which the nearest are looked through (IVF).

    Douze et al., "The Faiss library", 2024, arXiv 2401.08281.
    """

    def build(self, library: Library, path: Path) -> None:
        import faiss

        centres = max(1, min(_CENTRES, len(library) // _ROWS))
        index: Any = faiss.index_factory(library.width, f"IVF{centres},SQ8", faiss.METRIC_INNER_PRODUCT)
        step = max(1, len(library) // (128 * centres))
        index.train(np.concatenate([piece[::step] for piece in unit_pieces(library, _PIECE)]))
        for piece in unit_pieces(library, _PIECE):
            index.add(piece)
        faiss.write_index(index, str(path))

    def open(self, path: Path) -> Callable[[Array, int], Array]:
        import faiss

        index: Any = faiss.read_index(str(path), faiss.IO_FLAG_MMAP)
        index.nprobe = _LISTS
        return lambda query, count: index.search(query, count)[1][0]


class Usearch:
    """A graph of neighbours, 8 bits a number, along which the nearest are found (HNSW).

    Malkov and Yashunin, "Efficient and robust approximate nearest neighbor search using Hierarchical Navigable Small
    World graphs", TPAMI 2018, arXiv 1603.09320.
    """

    def build(self, library: Library, path: Path) -> None:
        from usearch.index import Index

        index, first = Index(ndim=library.width, metric="cos", dtype="i8"), 0
        for piece in unit_pieces(library, _PIECE):
            index.add(np.arange(first, first + len(piece)), piece)
            first += len(piece)
        index.save(str(path))

    def open(self, path: Path) -> Callable[[Array, int], Array]:
        from usearch.index import Index

        index = Index.restore(str(path), view=True)
        return lambda query, count: index.search(query[0], count).keys.astype(np.int64)


_KEPT: Mapping[str, Index] = {"faiss": Faiss(), "usearch": Usearch()}


def kept(name: str, library: Library) -> Ask:
    """By an index that is built when it is first asked for. The rows that it finds are measured exactly."""
    path = index_file(library, name)
    if not path.exists():
        with whole_file(path, len(library) * library.width) as unfinished:
            _KEPT[name].build(library, unfinished)
        for old in library.folder.glob(f"index-{name}-*"):  # of what the library was before
            if old != path:
                with suppress(OSError):
                    old.unlink()
    find = _KEPT[name].open(path)

    def ask(query: torch.Tensor, count: int, one_per_video: bool) -> Ranked:
        rows = find(query[None].numpy(), min(max(_MORE * count, _LEAST), len(library)))
        rows = rows[rows >= 0]  # faiss fills up with -1
        return Ranked(rows, library.cosines(query, rows))

    return ask


def index_file(library: Library, name: str) -> Path:
    """Where an index is kept: under another name when the library's rows are others."""
    rows = " ".join(part.path.name for part in library.parts)
    return library.folder / f"index-{name}-{hashlib.blake2b(rows.encode(), digest_size=8).hexdigest()}"


INDEXES: Mapping[str, Callable[[Library], Ask]] = {
    "exact": exact,
    **{name: partial(kept, name) for name in _KEPT},
}
"""Each by the name that `--index` takes."""
