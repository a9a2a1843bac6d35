"""What `timeline` returns: a video's segments, and the windows that they are made of."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

from timesformer_zoo.results import Gap, Prediction, Segment
from timesformer_zoo.video.origin import Readable

__all__ = ["Timeline"]


@dataclass(frozen=True)
class Timeline:
    """What a model says of a video from its start to its end."""

    path: str  # as messages call it
    duration: float  # seconds
    fps: float  # frames a second, which times are counted by
    segments: tuple[Segment, ...]  # in the order of their starts
    windows: tuple[Prediction, ...]  # in the order of time, each as the model said it, before smoothing
    gaps: tuple[Gap, ...]  # what could not be read
    smoothing: float  # seconds, of the segments
    labels: tuple[str, ...]  # all that the model knows
    video: Readable = field(repr=False, compare=False)  # for thumbnails

    @property
    def parts(self) -> list[Segment | Gap]:
        """Segments and gaps, in the order of their starts."""
        parts: list[Segment | Gap] = [*self.segments, *self.gaps]
        return sorted(parts, key=lambda part: part.start)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "path": self.path,
            "duration": self.duration,
            "smoothing": self.smoothing,
            "gaps": [gap.to_dict() for gap in self.gaps],
            "segments": [segment.to_dict() for segment in self.segments],
            "windows": [window_to_dict(window) for window in self.windows],
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to a file, which is there whole or not at all, in the format that its suffix says.

            timeline("timesformer_tiny_divided.camera_motion", "holiday.mp4").save("holiday.html")

        Args:
            path: that ends in .json (all of it), .jsonl or .csv (a line for each segment and gap), .html (a page that
                stands alone, with pictures of the video) or .png (a picture; it needs matplotlib).

        Raises:
            ValueError: another suffix.
            VideoReadError: the video, whose pictures html and png have, is not there any more.
            WriteError: it can't be written.
        """
        from timesformer_zoo.timelines.formats import format_of

        format_of(path)(self, path)


def window_to_dict(window: Prediction) -> dict[str, Any]:
    """What differs from window to window."""
    return {"start": window.start, "end": window.end, "top": [score._asdict() for score in window.top]}
