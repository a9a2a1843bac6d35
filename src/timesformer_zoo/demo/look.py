"""What the page's user gets of a video: its labels, its timeline, what they rest on, and what is like it.

All of it as text and HTML, so that it can cross to the page's process; nothing here knows the page.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypedDict

import torch
from PIL import Image

from timesformer_zoo.demo import html
from timesformer_zoo.errors import VideoReadError
from timesformer_zoo.explanation.explain import EXPLANATIONS, explain
from timesformer_zoo.explanation.picture import paint
from timesformer_zoo.hub.load import load_model, usable_device
from timesformer_zoo.model.timesformer import TimeSformer
from timesformer_zoo.prediction import predict, predict_windows
from timesformer_zoo.results import Prediction, segments
from timesformer_zoo.retrieval.library import Library, Match
from timesformer_zoo.retrieval.query import search
from timesformer_zoo.video.clip import clip_spec
from timesformer_zoo.video.reader import open_video
from timesformer_zoo.words import clock

__all__ = ["Limits", "Looker", "Update", "in_words"]

NEIGHBOURS = 6
_WIDTH = 320  # pixels of a picture
_EVERY = 0.5  # seconds at least between two pictures of the timeline as it grows
_WHOLE_VIDEOS = 12  # windows of a model that samples whole videos, of any length
_SHORTEST = 2.0  # seconds that such a window has at least


class Update(TypedDict, total=False):
    """What is new on the page; what is left out stays as it is."""

    status: str  # in words
    done: float  # of the work, from 0 to 1
    error: str
    labels: dict[str, float]  # probabilities
    timeline: str  # this and the next are HTML
    explanation: str
    neighbours: str


@dataclass(frozen=True)
class Limits:
    """What an upload may be."""

    megabytes: float = 200  # of 2 ** 20 bytes, as Gradio counts them
    minutes: float = 10
    seconds: float = 600  # that it is worked on

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise ValueError(f"at most {value:g} {name} of a video make no sense: expected a positive number")


class Looker:
    """Models, each loaded once, and a library.

    Args:
        models: names that `load_model` knows.
        library: a folder that `embed` wrote; None: nothing is searched.
        device: where the models run; None: the fastest there is.
        limits: for videos.

    Raises:
        ValueError, DownloadError, CheckpointError: as `load_model`.
        OutputError: there is no library, or it is damaged.
    """

    def __init__(
        self, models: Sequence[str], library: str | None = None, device: str | None = None, limits: Limits | None = None
    ) -> None:
        self.limits = limits or Limits()
        self.library = None if library is None else Library.open(library)
        searching = [] if self.library is None else [_model_of(self.library)]
        where = usable_device(device)
        self._loaded = {name: load_model(name, device=where) for name in dict.fromkeys([*models, *searching])}

    def look(self, path: str, model_name: str) -> Iterator[Update]:
        """All that is found, piece by piece, as it is found.

        Raises:
            VideoReadError: the file can't be read, or is too long.
        """
        model = self._loaded[model_name]
        seconds = self._length(path)
        windows, shown = [], 0.0
        for window in predict_windows(model, path, model.num_classes, window=_window(model, seconds)):
            windows.append(window)
            self._check_length(path, window.end or 0)  # what was read, whatever the file said of itself
            if time.monotonic() > shown + _EVERY:
                told = f"Labelled {clock(window.end or 0)} of {clock(seconds)}"
                done = 0.7 * (window.end or 0) / seconds
                yield {"status": told, "done": done, "timeline": _timeline(windows, seconds)}
                shown = time.monotonic()
        labels = _labels(model, path, windows)
        yield {"timeline": _timeline(windows, seconds), "labels": labels}
        yield {"status": "Explaining it", "done": 0.7}
        label = max(labels, key=lambda name: labels[name]) if labels else next(iter(windows[0].values))
        surest = max(windows, key=lambda window: {s.label: s.probability for s in window.top}.get(label, 0))
        yield {"explanation": _explanation(model, path, label, surest)}
        if self.library is not None:
            yield {"status": "Searching the library", "done": 0.9}
            yield {"neighbours": self._neighbours(self.library, path, surest)}
        yield {"status": f"Done: {clock(seconds)} of video", "done": 1}

    def _neighbours(self, library: Library, path: str, window: Prediction) -> str:
        """Of a library of windows, what is like a window; else what is like the video."""
        moment = library.settings["per"] == "window"
        start, end = (window.start, window.end) if moment else (None, None)
        model = self._loaded[_model_of(library)]
        found = search(library, path, NEIGHBOURS, start=start, end=end, one_per_video=True, model=model)
        what = f"Like {_times(window)}" if moment else "Like all of it"
        title = f"{what}: the nearest of each of {len(found)} videos, by cosine similarity."
        return html.gallery(title, [(_frame(match), _caption(match)) for match in found])

    def _length(self, path: str) -> float:
        video = open_video(path, isolated=True)
        video.close()
        seconds = video.num_frames / video.fps if video.fps else 0
        self._check_length(path, seconds)
        return seconds

    def _check_length(self, path: str, seconds: float) -> None:
        longest = self.limits.minutes * 60
        if seconds > longest + 0.5:
            length = f"{clock(seconds)}, expected at most {clock(longest)}"
            raise VideoReadError(f"{path}: it is too long: {length}; cut out a part of it")


def in_words(error: BaseException, path: str) -> str:
    """An error as the page shows it: of an upload, its name without the folder in which it lies here."""
    text = str(error) or type(error).__name__
    return text.replace(path, os.path.basename(path)).replace(os.path.dirname(path), "")


def _window(model: TimeSformer, seconds: float) -> float | None:
    whole = clip_spec(model).sampling == "uniform"
    return max(_SHORTEST, seconds / _WHOLE_VIDEOS) if whole else None


def _timeline(windows: Sequence[Prediction], seconds: float) -> str:
    if windows[0].task == "regression":
        return html.values_table([(window.start or 0, window.end or 0, window.values) for window in windows])
    return html.timeline(segments(windows), seconds)


def _labels(model: TimeSformer, path: str, windows: Sequence[Prediction]) -> dict[str, float]:
    """Of all the video: by its windows where the model goes by these, or as its protocol looks at one."""
    if not clip_spec(model).windows or not windows[0].top:
        return {score.label: score.probability for score in predict(model, [path])[0].top}
    sums: dict[str, float] = {}
    for window in windows:
        for score in window.top:
            sums[score.label] = sums.get(score.label, 0.0) + score.probability / len(windows)
    return sums


def _explanation(model: TimeSformer, path: str, label: str, window: Prediction) -> str:
    """What in a window speaks for a label."""
    found = explain(model, path, label, start=window.start, end=window.end)
    height, width = found.frames.shape[1:3]
    size = (max(1, round(_WIDTH * height / width)), _WIDTH)
    figures: list[tuple[str, str]] = []
    for frame, map, weight in zip(*paint(found.frames, found.map, found.box, size), found.time_weights, strict=True):
        time = "" if found.times is None else f"{clock(found.times[len(figures)])}, "
        image = _jpeg(torch.cat([frame, map]), f"Frame {len(figures) + 1} above its map")
        figures.append((image, f"{time}{weight:.0%}"))
    title = f"What speaks for “{label}” where it is surest, {_times(window)}: {EXPLANATIONS[found.method].tells}."
    return html.gallery(f"{title} Each frame above its map, and its share of the whole map.", figures)


def _times(window: Prediction) -> str:
    return f"{clock(window.start or 0)} to {clock(window.end or 0)}"


def _model_of(library: Library) -> str:
    if library.model is None:
        raise ValueError(f"{library.folder} does not say which model made it; embed its videos with a model's name")
    return library.model


def _frame(match: Match) -> str:
    """From the middle of what was found; or why there is none: the file may have gone since it was embedded."""
    try:
        video = open_video(match.path, isolated=True)
        middle = ((match.start or 0) + (match.end or 0)) / 2 * (video.fps or 0)
        frame = video.frames([min(int(middle), video.num_frames - 1)])[0]
        video.close()
    except VideoReadError:
        return "<em>its file is gone</em>"
    return _jpeg(frame, f"A frame of {os.path.basename(match.path)}")


def _jpeg(frame: torch.Tensor, alt: str) -> str:
    """(H, W, 3) uint8, at most `_WIDTH` wide, as part of the page."""
    image = Image.fromarray(frame.numpy())
    image.thumbnail((_WIDTH, 4 * _WIDTH))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return html.picture(buffer.getvalue(), "jpeg", alt)


def _caption(match: Match) -> str:
    """Its name without the folder, which is no business of the page's readers."""
    times = "" if match.start is None else f", {clock(match.start)} – {clock(match.end or 0)}"
    return f"{os.path.basename(match.path)}{times} (similarity {round(match.similarity, 2) + 0.0:.2f})"
