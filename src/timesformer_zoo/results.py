"""What prediction says of a video or a part of it, its labels or values, and the segments that windows make."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from itertools import groupby
from typing import Any, NamedTuple

__all__ = ["Prediction", "Score", "Segment", "timeline"]

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


def timeline(windows: Iterable[Prediction]) -> list[Segment]:
    """The segments of a video: neighbouring windows with the same likeliest label, joined.

        timeline(predict_windows("timesformer_tiny_divided.camera_motion", "holiday.mp4"))

    Where two segments meet, each has half of what their windows share, or of the gap that they leave. Of a multi-label
    model, each label has segments of its own, where it is likelier than not: they overlap, and leave gaps.

    Args:
        windows: of one video, in the order of time, as `predict_windows` gives them.

    Raises:
        ValueError: a prediction without start and end, or of values, which have no segments.
    """
    windows = list(windows)
    edges: list[float] = []  # of the windows, where each is cut from the one before
    for window in windows:
        if window.start is None or window.end is None:
            raise ValueError(f"{window.path}: a prediction has no start and end, expected those of predict_windows")
        if window.task == "regression":
            raise ValueError(f"{window.path}: a regression has values and no segments: take them window by window")
        edges[-1:] = [(edges[-1] + window.start) / 2, window.end] if edges else [window.start, window.end]
    seen = [_seen(window) for window in windows]
    segments = []
    for label in dict.fromkeys(label for labels in seen for label in labels):
        for there, run in groupby(range(len(windows)), key=lambda i, label=label: label in seen[i]):  # type: ignore[misc]
            if there:
                first, *_ = alike = list(run)
                mean = sum(seen[i][label] for i in alike) / len(alike)
                segments.append(Segment(edges[first], edges[alike[-1] + 1], label, mean, len(alike)))
    return sorted(segments, key=lambda segment: segment.start)


def _seen(window: Prediction) -> dict[str, float]:
    """The labels of a window and their probabilities: its likeliest class, or all that are likelier than not."""
    chosen = window.top[:1] if window.task == "classes" else [s for s in window.top if s.label in window.labels]
    return {score.label: score.probability for score in chosen}
