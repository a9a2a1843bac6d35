"""What prediction says of a video or a part of it, its labels or values, and the segments that windows make."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby
from typing import Any, NamedTuple

__all__ = ["Gap", "Prediction", "Score", "Segment", "segments", "smooth"]

_CLEAR = 0.5  # of the likeliest class; below it, the others together are likelier. Of a label: likelier than not


class Score(NamedTuple):
    """One class and how likely it is."""

    label: str
    probability: float  # 0 to 1
    class_index: int


@dataclass(frozen=True)
class Prediction:
    """What a model says of a video, or of a part of it."""

    path: str
    top: tuple[Score, ...]  # the likeliest first; of several labels all that are likelier than not; none of values
    start: float | None = None  # seconds; what was seen begins here. None, as the next two, without a frame rate
    end: float | None = None  # likewise; with several clips, the last one's
    duration: float | None = None  # of the whole video
    task: str = "classes"  # kind of target, as `ClipSpec.task`: "multilabel" has probabilities that do not sum to 1
    values: dict[str, float] = field(default_factory=dict, hash=False)  # of a regression, by name

    @property
    def unclear(self) -> bool:
        """Whether even the likeliest class is less likely than the others together: no more than a guess."""
        return self.task == "classes" and self.top[0].probability < _CLEAR

    @property
    def labels(self) -> tuple[str, ...]:
        """All that is likelier than not: one class or none, or any number of labels."""
        scores = self.top[:1] if self.task == "classes" else self.top
        return tuple(score.label for score in scores if score.probability >= _CLEAR)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        times = {"start": self.start, "end": self.end, "duration": self.duration}
        said = {"unclear": self.unclear, "labels": list(self.labels), "values": self.values}
        return {"path": self.path, **times, "task": self.task, **said, "top": [score._asdict() for score in self.top]}


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


@dataclass(frozen=True)
class Gap:
    """A part of a video that could not be read, and has no label."""

    start: float  # seconds
    end: float
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def smooth(windows: Iterable[Prediction], seconds: float) -> list[Prediction]:
    """Each window with the mean of the probabilities that it and its neighbours have.

    Args:
        windows: of one video, in the order of time. What their `top` does not tell counts as 0.
        seconds: neighbours are windows whose middles lie within half of this of the window's own.

    Raises:
        ValueError: seconds is negative, or a prediction has no start and end.
    """
    if not seconds >= 0:
        raise ValueError(f"smoothing is {seconds}, expected seconds, or 0 for none")
    windows = list(windows)
    middles = [sum(_times(window)) / 2 for window in windows]
    smoothed = []
    for window, middle in zip(windows, middles, strict=True):
        near = windows[bisect_left(middles, middle - seconds / 2) : bisect_right(middles, middle + seconds / 2)]
        sums: dict[tuple[str, int], float] = {}
        for label, probability, index in (score for other in near for score in other.top):
            sums[label, index] = sums.get((label, index), 0.0) + probability / len(near)
        top = sorted((Score(label, mean, index) for (label, index), mean in sums.items()), key=lambda s: -s.probability)
        smoothed.append(replace(window, top=tuple(top)))
    return smoothed


def segments(windows: Iterable[Prediction], smoothing: float = 0.0, gaps: Iterable[Gap] = ()) -> list[Segment]:
    """The segments of a video: neighbouring windows with the same likeliest label, joined.

        segments(predict_windows("timesformer_tiny_divided.camera_motion", "holiday.mp4"))

    Where two segments meet, each has half of what their windows share, or of the time that lies between them. Of a
    multi-label model, each label has segments of its own, where it is likelier than not: they overlap, and leave gaps.

    Args:
        windows: of one video, in the order of time, as `predict_windows` gives them.
        smoothing: seconds over which probabilities are averaged before, see `smooth`; 0: not at all.
        gaps: parts that could not be read: no segment reaches into one, nor are windows before and after averaged.

    Raises:
        ValueError: a prediction without start and end, or of values, which have no segments; or a negative smoothing.
    """
    windows = list(windows)
    for window in windows:
        _times(window)
        if window.task == "regression":
            raise ValueError(f"{window.path}: a regression has values and no segments: take them window by window")
    found: list[Segment] = []
    begin = -math.inf
    for gap in (*sorted(gaps, key=lambda gap: gap.start), Gap(math.inf, math.inf, "")):
        before = [window for window in windows if sum(_times(window)) < gap.start + gap.end]  # their middles
        found += _joined(smooth(before, smoothing) if smoothing else before, begin, gap.start)
        windows, begin = windows[len(before) :], gap.end
    return sorted(found, key=lambda segment: segment.start)


def _joined(windows: Sequence[Prediction], begin: float, end: float) -> list[Segment]:
    """Segments of windows without a gap between them, within `begin` and `end`."""
    edges: list[float] = []  # of the windows, where each is cut from the one before
    for window in windows:
        start, stop = _times(window)
        edges[-1:] = [(edges[-1] + start) / 2, stop] if edges else [start, stop]
    edges = [min(max(edge, begin), end) for edge in edges]
    seen = [_seen(window) for window in windows]
    found = []
    for label in dict.fromkeys(label for labels in seen for label in labels):
        for there, run in groupby(range(len(windows)), key=lambda i, label=label: label in seen[i]):  # type: ignore[misc]
            if there:
                first, *_ = alike = list(run)
                mean = sum(seen[i][label] for i in alike) / len(alike)
                found.append(Segment(edges[first], edges[alike[-1] + 1], label, mean, len(alike)))
    return found


def _times(window: Prediction) -> tuple[float, float]:
    if window.start is None or window.end is None:
        raise ValueError(f"{window.path}: a prediction has no start and end, expected those of predict_windows")
    return window.start, window.end


def _seen(window: Prediction) -> dict[str, float]:
    """The labels of a window and their probabilities: its likeliest class, or all that are likelier than not."""
    chosen = window.top[:1] if window.task == "classes" else [s for s in window.top if s.label in window.labels]
    return {score.label: score.probability for score in chosen}
