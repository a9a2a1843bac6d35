"""A library of features, opened to be asked: what in it is most like this?

Legend: N rows, D features.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch

from timesformer_zoo.errors import OutputError
from timesformer_zoo.retrieval.index import INDEXES, best
from timesformer_zoo.retrieval.parts import Part, read_manifest, read_part

__all__ = ["Library", "Match"]


@dataclass(frozen=True)
class Match:
    """A row of a library that is like what was asked for."""

    path: str
    start: float | None  # seconds; None without a frame rate
    end: float | None
    similarity: float  # the cosine, from -1 to 1
    row: int  # its number in the library

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True, repr=False)
class Library:
    """Features of videos, mapped from the files that `embed` wrote: what is not looked at is not in memory.

    library = Library.open("library")
    len(library), library.features.shape, library.path(0), library.times[0]
    """

    folder: Path
    model: str | None
    """The name of the model that made it; None: it was given as an object, and `search` needs it again."""
    settings: dict[str, Any]
    """On which features depend: the model's digest, what a row is of, how clips are sampled."""
    videos: list[dict[str, Any]]
    """Of each "path"; of an address "digest"; "version", which changes with its file; "error", if it can't be read."""
    parts: list[Part]

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Library:
        """The library of a folder.

        Raises:
            OutputError: there is none, or it is damaged.
        """
        folder = Path(folder)
        while (manifest := read_manifest(folder)) is not None:
            try:
                parts = [read_part(folder / name, manifest.settings["width"]) for name in manifest.parts]
                break
            except OutputError:
                if read_manifest(folder) == manifest:  # else another process has just replaced its parts
                    raise
        else:
            raise OutputError(f"{folder}: there is no library (no library.json); make one by embed")
        return cls(folder, manifest.model, manifest.settings, [about for part in parts for about in part.videos], parts)

    def __len__(self) -> int:
        return self._firsts[-1]

    @property
    def width(self) -> int:
        """D."""
        width: int = self.settings["width"]
        return width

    @property
    def shape(self) -> tuple[int, int]:
        """(N, D)."""
        return len(self), self.width

    @cached_property
    def features(self) -> torch.Tensor:
        """(N, D), float16 or float32, as the model gave them. Of a library of several parts this is a copy."""
        return self._all([part.features for part in self.parts], (0, self.width))

    @cached_property
    def times(self) -> torch.Tensor:
        """(N, 2) float64: where each row's frames begin and end, in seconds; NaN without a frame rate."""
        return self._all([part.times for part in self.parts], (0, 2))

    @cached_property
    def video(self) -> torch.Tensor:
        """(N,) int64: which of `videos` each row is of."""
        offsets = accumulate((len(part.videos) for part in self.parts), initial=0)
        return self._all([p.video.long() + offset for p, offset in zip(self.parts, offsets, strict=False)], (0,)).long()

    def __repr__(self) -> str:
        about = f"model={self.model!r}, per={self.settings['per']!r}"
        return f"Library({str(self.folder)!r}, {about}, videos={len(self.videos)}, features={self.shape})"

    def path(self, row: int) -> str:
        """Of the video that a row is of."""
        part, row = self._place(row)
        path: str = part.videos[int(part.video[row])]["path"]
        return path

    def search(
        self,
        query: torch.Tensor | np.ndarray[Any, Any] | Sequence[float],
        topk: int = 10,
        *,
        one_per_video: bool = False,
        index: str = "exact",
    ) -> list[Match]:
        """The rows whose cosine with a feature is largest, the largest first; of equal ones the earlier row.

        Args:
            query: (D,), of the same model and sampling.
            topk: how many; all if there are fewer.
            one_per_video: of each video its best row alone, as windows that overlap are alike.
            index: one of `INDEXES`: "exact" looks at all rows. Another is built when it is first asked for, which takes
                its time, and is kept in the folder.

        Raises:
            OutputError: the library is empty.
            ValueError: the query has another width, or is not finite; no index of this name.
            WriteError: an index can't be written to the folder.
        """
        if index not in INDEXES:
            raise ValueError(f"index is {index!r}, expected one of {', '.join(INDEXES)}")
        if topk < 1:
            raise ValueError(f"topk is {topk}, expected a whole number from 1 up")
        vector = torch.as_tensor(query).detach().cpu().float()
        if vector.shape != (self.width,):
            raise ValueError(
                f"the query's shape is {tuple(vector.shape)}, expected ({self.width},), the library's width"
            )
        if not len(self):
            raise OutputError(f"{self.folder}: the library has no rows; add videos by embed")
        norm = float(vector.norm())
        if not (0 < norm < float("inf")):
            raise ValueError("the query is zero or not finite, so that it has no direction")
        ask = self._index(index)
        wanted = min(topk, len(self))
        while True:  # of an index that does not look at all rows, more until there are videos enough
            ranked = ask(vector / norm, wanted, one_per_video)
            ranked = best(
                ranked.rows, ranked.similarities, wanted, self.video.numpy()[ranked.rows] if one_per_video else None
            )
            if not one_per_video or len(ranked.rows) >= topk or wanted >= len(self) or index == "exact":
                break
            wanted = min(4 * wanted, len(self))
        pairs = zip(ranked.rows.tolist(), ranked.similarities.tolist(), strict=True)
        return [self._match(row, similarity) for row, similarity in list(pairs)[:topk]]

    def cosines(self, query: torch.Tensor, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Of some rows with a unit vector (D,)."""
        found = np.empty(len(rows), np.float32)
        for first, part in zip(self._firsts[:-1], self.parts, strict=True):
            here = (rows >= first) & (rows < first + len(part.features))
            at = torch.from_numpy(rows[here] - first)
            found[here] = ((part.features[at].float() @ query) / part.norms[at].clamp(min=1e-12)).numpy()
        return found

    def _index(self, name: str) -> Any:
        kept: dict[str, Any] = self.__dict__.setdefault("_indexes", {})
        if name not in kept:
            kept[name] = INDEXES[name](self)
        return kept[name]

    def _match(self, row: int, similarity: float) -> Match:
        part, at = self._place(row)
        start, end = (None if value != value else value for value in part.times[at].tolist())
        return Match(self.path(row), start, end, similarity, row)

    @cached_property
    def _firsts(self) -> list[int]:
        """Of each part its first row, and how many there are."""
        return list(accumulate((len(part.features) for part in self.parts), initial=0))

    def _place(self, row: int) -> tuple[Part, int]:
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of a library of {len(self)}")
        number = bisect_right(self._firsts, row) - 1
        return self.parts[number], row - self._firsts[number]

    @staticmethod
    def _all(tensors: list[torch.Tensor], empty: tuple[int, ...]) -> torch.Tensor:
        if not tensors:
            return torch.zeros(empty)
        return tensors[0] if len(tensors) == 1 else torch.cat(tensors)
