"""A model's features of a video: what its head would see, as a whole, of each test clip or of each window.

Legend: V views, N rows, D features, C channels, T frames, H W pixels.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import nn

from timesformer_zoo.hub.load import load_model, usable_device
from timesformer_zoo.model.timesformer import TimeSformer, expect_timesformer
from timesformer_zoo.prediction import predict_windows, run_views
from timesformer_zoo.video.clip import clip_spec
from timesformer_zoo.video.origin import Readable
from timesformer_zoo.video.part import Part
from timesformer_zoo.video.reader import open_video
from timesformer_zoo.video.views import gather_views, view_indices
from timesformer_zoo.weights.digest import feature_args, weights_digest

__all__ = ["PER", "Encoder", "Features", "Taking"]

_BATCH = 8  # views that run at once

# Of a ClipSpec, what features do not depend on.
_OF_LABELS = ("labels", "fuse", "task", "jitter", "flip", "windows")


class Features(NamedTuple):
    """Of one video, or of a part of it."""

    times: torch.Tensor  # (N, 2) float64, seconds: where each row's frames begin and end; NaN without a frame rate
    rows: torch.Tensor  # (N, D) float32, each the mean over its crops


@dataclass(frozen=True)
class Taking:
    """What of a video becomes a row; None: as the model's `ClipSpec` says."""

    per: str = "window"
    window: float | None = None  # seconds
    step: float | None = None  # seconds from one window to the next; None: they touch
    clips: int | None = None
    crops: int | None = None

    def __post_init__(self) -> None:
        if self.per not in PER:
            raise ValueError(f"per is {self.per!r}, expected one of {', '.join(PER)}")
        for name in ("window", "step") if self.per == "clip" else ("clips",) if self.per == "window" else ():
            if getattr(self, name) is not None:
                raise ValueError(f"{name} is {getattr(self, name)}, which has no meaning per {self.per}: leave it out")
        for name in ("window", "step", "clips", "crops"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} is {value}, expected a positive number")


class Encoder:
    """A model without its head, on a device.

    Args:
        model: a TimeSformer, which stays as it is, or a name that `load_model` knows.
        taking: what of a video becomes a row.
        device: where a named model runs; None: the fastest there is. A model that is given stays where it is.

    Attributes:
        name: of the model; None of one that was given.
        digest: of all in the model that its features depend on: weights and arguments, but for the head's.
        sampling: what they depend on of its `ClipSpec`.
        width: D.
    """

    def __init__(self, model: nn.Module | str | os.PathLike[str], taking: Taking, device: str | None = None) -> None:
        self.name = None if isinstance(model, nn.Module) else os.fspath(model)
        if isinstance(model, nn.Module):
            whole = expect_timesformer(model)
        else:
            whole = load_model(model, device=usable_device(device))
        if whole.global_pool not in ("token", "avg"):
            raise ValueError(
                f"the model gives features of each frame or token (global_pool is {whole.global_pool!r}), not of a clip"
            )
        self.digest = _digest_of(whole)
        spec = clip_spec(whole)
        self.spec = spec.with_views(taking.clips, taking.crops)
        self.sampling = {name: value for name, value in self.spec.to_dict().items() if name not in _OF_LABELS}
        self.width = whole.embed_dim
        self.taking = taking
        self._model = _without_head(whole)

    @property
    def settings(self) -> dict[str, Any]:
        """Plain values: rows with the same ones can be compared."""
        taking = {name: getattr(self.taking, name) for name in ("per", "window", "step")}
        model = {"digest of the model": self.digest, "width": self.width}
        return {**model, **taking, "windows": self.by_windows, "sampling": self.sampling}

    @property
    def by_windows(self) -> bool:
        """Whether rows are of windows, or the mean of windows; else of test clips."""
        of_windows = self.taking.window is not None or self.taking.step is not None
        whole = self.taking.per == "video" and self.taking.clips is None
        return self.taking.per == "window" or of_windows or (whole and self.spec.windows)

    def __call__(self, video: Readable, start: float | None = None, end: float | None = None) -> Features:
        """Of a video, or of its part from `start` to `end`, in seconds.

        Raises:
            VideoReadError: it can't be read, or has no such part.
        """
        if start is None and end is None:
            return PER[self.taking.per](self, video)
        part = Part(open_video(video, isolated=True), start, end)
        times, rows = PER[self.taking.per](self, cast(Readable, part))
        return Features(times + part.start, rows)

    def windows(self, video: Readable) -> Features:
        """A row for each of the windows that `predict_windows` has."""
        rows, times = [], []
        names = [str(i) for i in range(self.width)]
        for window in predict_windows(
            self._model, video, crops=self.spec.crops, window=self.taking.window, step=self.taking.step, labels=names
        ):
            rows.append(torch.tensor(list(window.values.values())))
            times.append((window.start, window.end))
        return Features(torch.tensor(times, dtype=torch.float64), torch.stack(rows))

    def clips(self, video: Readable) -> Features:
        """A row for each of the test clips."""
        file = open_video(video, isolated=True)
        seen = view_indices(file, self.spec)
        rows = self._run(gather_views(file, seen, self.spec)).unflatten(0, (len(seen), -1)).mean(1)
        fps = file.fps or self.spec.fps or float("nan")
        times = [(min(indices) / fps, (max(indices) + 1) / fps) for indices in seen]
        return Features(torch.tensor(times, dtype=torch.float64), rows)

    def whole(self, video: Readable) -> Features:
        """One row: the mean of its clips', or of its windows' where the model goes by these or they are asked for."""
        times, rows = (self.windows if self.by_windows else self.clips)(video)
        return Features(torch.stack([times[:, 0].min(), times[:, 1].max()])[None], rows.mean(0, keepdim=True))

    def _run(self, views: torch.Tensor) -> torch.Tensor:
        """(V, C, T, H, W) -> (V, D) float32, on the CPU."""
        return run_views(self._model, views, _BATCH)


PER: Mapping[str, Callable[[Encoder, Readable], Features]] = {
    "window": Encoder.windows,
    "clip": Encoder.clips,
    "video": Encoder.whole,
}
"""What one row is of -> the rows of a video."""


def _digest_of(model: TimeSformer) -> str:
    """Of all that a model's features depend on besides how clips are taken: its weights and arguments, not its head."""
    about = [weights_digest(model, head=False), feature_args(model)]
    return hashlib.blake2b(json.dumps(about, sort_keys=True, default=str).encode(), digest_size=16).hexdigest()


def _without_head(model: TimeSformer) -> TimeSformer:
    """The same model, sharing its weights, whose outputs are what the head sees: to prediction, a regression's values.

    So all that prediction can do is there for features too, windows of a long video above all.
    """
    features = copy.copy(model)
    features._modules = dict(model._modules)
    features.head = nn.Identity()
    features.num_classes = model.embed_dim
    features.clip = {**(model.clip or {}), "task": "regression", "labels": None}
    return features
