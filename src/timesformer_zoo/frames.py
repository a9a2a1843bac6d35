"""A video stored as a folder of pictures, read like a video file.

Legend: C channels, T frames, H W pixels.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from PIL import Image

from timesformer_zoo.annotations import IMAGE_SUFFIXES
from timesformer_zoo.errors import VideoReadError
from timesformer_zoo.video import Video

__all__ = ["FrameFolder", "Frames", "open_frames"]


class Frames(Protocol):
    """What `Video` and `FrameFolder` have in common."""

    num_frames: int
    fps: float | None

    def frames(self, indices: Sequence[int]) -> torch.Tensor: ...

    def stream(self, indices: Iterable[int]) -> Iterator[torch.Tensor]: ...


class FrameFolder:
    """The pictures of a folder as the frames of a video, ordered by the numbers in their names.

    Attributes:
        num_frames: how many there are.
        fps: None: a folder does not say.

    Raises:
        VideoReadError: no such folder, or no picture in it.
    """

    fps: float | None = None

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            names = [name for name in os.listdir(path) if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES]
        except OSError as error:
            raise VideoReadError(f"{path}: cannot be listed ({error.strerror}); check the path") from error
        if not names:
            raise VideoReadError(f"{path}: no pictures in this folder; expected {', '.join(sorted(IMAGE_SUFFIXES))}")
        self._names = sorted(names, key=_natural)
        self.num_frames = len(self._names)

    def stream(self, indices: Iterable[int]) -> Iterator[torch.Tensor]:
        """Each distinct frame of `indices` once, `(H, W, C) uint8` RGB, in ascending order.

        Raises:
            VideoReadError: a picture cannot be decoded.
        """
        for index in sorted(set(indices)):
            path = os.path.join(self.path, self._names[index])
            try:
                with Image.open(path) as image:
                    pixels = np.array(image.convert("RGB"))
            except OSError as error:
                raise VideoReadError(f"{path}: cannot be decoded ({error}); extract the frames again") from error
            yield torch.from_numpy(pixels)

    def frames(self, indices: Sequence[int]) -> torch.Tensor:
        """`(T, H, W, C) uint8` RGB of any indices, in the order given."""
        decoded = dict(zip(sorted(set(indices)), self.stream(indices), strict=True))
        return torch.stack([decoded[i] for i in indices])


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts frame2 before frame10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def open_frames(path: str, *, num_threads: int = 0) -> Frames:
    """A video file, or a folder of frames.

    Raises:
        VideoReadError: it cannot be read.
    """
    return FrameFolder(path) if os.path.isdir(path) else Video(path, num_threads=num_threads)
