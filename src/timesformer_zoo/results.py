"""What prediction says of a video: the likeliest classes of it or a part of it, and the segments that windows make."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from typing import Any, NamedTuple

__all__ = ["Prediction", "Score", "Segment", "timeline"]

_CLEAR = 0.5  # of the likeliest label; below it, the others together are likelier


class Score(NamedTuple):
    """One class and how likely it is."""

    label: str
    probability: float  # 0 to 1
    class_index: int


@dataclass(frozen=True)
class Prediction:
    """What a model says of a video, or of a part of it."""

    path: str
    top: tuple[Score, ...]  # the likeliest first
    start: float | None = None  # seconds; what was seen begins here. None, as the next two, without a frame rate
    end: float | None = None  # likewise; with several clips, the last one's
    duration: float | None = None  # of the whole video

    @property
    def unclear(self) -> bool:
        """Whether even the likeliest label is less likely than the others together: no more than a guess."""
        return self.top[0].probability < _CLEAR

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        times = {"start": self.start, "end": self.end, "duration": self.duration}
        return {"path": self.path, **times, "unclear": self.unclear, "top": [score._asdict() for score in self.top]}


@dataclass(frozen=True)
class Segment:
    """A part of a video that has one label."""

    start: float  # seconds
    end: float
    label: str
    probability: float  # mean over its windows
    windows: int

    @property
    def unclear(self) -> bool:
        """As of a `Prediction`."""
        return self.probability < _CLEAR

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**asdict(self), "unclear": self.unclear}


def timeline(windows: Iterable[Prediction]) -> list[Segment]:
    """The segments of a video: neighbouring windows with the same likeliest label, joined.

        timeline(predict_windows("timesformer_tiny_divided.camera_motion", "holiday.mp4"))

    Where two segments meet, each has half of what their windows share, or of the gap that they leave.

    Args:
        windows: of one video, in the order of time, as `predict_windows` gives them.

    Raises:
        ValueError: a prediction without start and end.
    """
    segments: list[Segment] = []
    for label, group in groupby(windows, key=lambda window: window.top[0].label):
        first, *_ = alike = list(group)
        start, end = first.start, alike[-1].end
        if start is None or end is None:
            raise ValueError(f"{first.path}: a prediction has no start and end, expected those of predict_windows")
        if segments:
            start = (segments[-1].end + start) / 2
            segments[-1] = replace(segments[-1], end=start)
        mean = sum(window.top[0].probability for window in alike) / len(alike)
        segments.append(Segment(start, end, label, mean, len(alike)))
    return segments
