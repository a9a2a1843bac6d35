"""A part of a video, from one second to another, as a video of its own."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import torch

from timesformer_zoo.errors import VideoReadError
from timesformer_zoo.video.pixels import Pixels
from timesformer_zoo.video.reader import Frames

__all__ = ["Part"]


class Part:
    """Frames of a part; its first is frame 0.

    Args:
        video: all of it.
        start, end: in seconds; None: from its beginning, to its end. A frame that is shown at `start` is the first.

    Attributes:
        path, fps: the video's.
        num_frames: of the part.
        start: where it begins, in seconds.

    Raises:
        VideoReadError: the video has no frame rate, or no frame there.
        ValueError: the two make no sense.
    """

    def __init__(self, video: Frames, start: float | None, end: float | None) -> None:
        for name, value in {"start": start, "end": end}.items():
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(f"{name} is {value}, expected seconds from 0 up")
        first, last = start or 0.0, math.inf if end is None else end
        if first >= last:
            raise ValueError(f"start is {first:g} and end {last:g}, expected seconds, the end after the start")
        if not video.fps:
            raise VideoReadError(f"{video.path}: it has no frame rate, so a part of it has no time; give all of it")
        self._first = round(first * video.fps)
        stop = video.num_frames if end is None else min(max(round(last * video.fps), self._first + 1), video.num_frames)
        if self._first >= stop:
            raise VideoReadError(
                f"{video.path}: it ends at {video.num_frames / video.fps:.1f} s, before the part from {first:g} s"
            )
        self._video = video
        self.path, self.num_frames = video.path, stop - self._first
        self.fps: float | None = video.fps
        self.start = self._first / video.fps

    def frames(self, indices: Sequence[int]) -> torch.Tensor:
        """As of a `Video`."""
        return self._video.frames([self._first + index for index in indices])

    def stream(self, indices: Iterable[int], pixels: Pixels | None = None) -> Iterator[torch.Tensor]:
        """As of a `Video`."""
        return self._video.stream((self._first + index for index in indices), pixels)

    def close(self) -> None:
        """As of a `Video`."""
        self._video.close()
