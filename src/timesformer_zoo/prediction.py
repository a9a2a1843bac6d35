"""From video files to labels.

Legend: V views, B batch, C channels, T frames, H W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, cast, overload

import torch
from torch import nn

from timesformer_zoo.errors import VideoReadError
from timesformer_zoo.hub.load import load_model
from timesformer_zoo.labels import Labels, label_names, model_labels
from timesformer_zoo.model.timesformer import TimeSformer, expect_timesformer
from timesformer_zoo.results import Gap, Prediction, Score
from timesformer_zoo.video.clip import clip_spec, frame_indices
from timesformer_zoo.video.origin import Readable, is_one
from timesformer_zoo.video.reader import open_video
from timesformer_zoo.video.views import gather_views, view_indices
from timesformer_zoo.video.windows import ahead, stream_windows

__all__ = [
    "OUTPUTS",
    "Output",
    "Windows",
    "checked",
    "evaluating",
    "fuse_views",
    "inference",
    "predict",
    "predict_windows",
    "run_views",
    "tell",
]

# Tokens that run at once, over all views: 32 k of width 768 take about 1 GB.
_MAX_TOKENS = 2**15


@overload
def predict(  # type: ignore[overload-overlap]  # a str is an iterable of str, too; the first overload wins
    model: nn.Module | str,
    path_or_paths: Readable,
    topk: int = ...,
    clips: int | None = ...,
    crops: int | None = ...,
    *,
    labels: Labels | None = ...,
    batch_size: int | None = ...,
) -> Prediction: ...


@overload
def predict(
    model: nn.Module | str,
    path_or_paths: Iterable[Readable],
    topk: int = ...,
    clips: int | None = ...,
    crops: int | None = ...,
    *,
    labels: Labels | None = ...,
    batch_size: int | None = ...,
    errors: list[VideoReadError] | None = ...,
) -> list[Prediction]: ...


def predict(
    model: nn.Module | str,
    path_or_paths: Readable | Iterable[Readable],
    topk: int = 5,
    clips: int | None = None,
    crops: int | None = None,
    *,
    labels: Labels | None = None,
    batch_size: int | None = None,
    errors: list[VideoReadError] | None = None,
) -> Prediction | list[Prediction]:
    """Classify videos, each by all its test views, fused as the model's `ClipSpec.task` and `fuse` say.

        predict("timesformer_tiny_divided.camera_motion", "holiday.mp4").top[0].label

    Args:
        model: a TimeSformer; runs where its weights are, in inference mode, and is left as it was. A name is loaded by
            `load_model`, every time: give the model itself to load it once.
        path_or_paths: a video file or a folder of its frames, as `open_video` takes them (a path, an address, bytes, a
            file object), or several. Several files, and the one of a list of one,
            are read in another process, so that a decoder's crash is an error of that file: see `Video`, `isolated`.
        topk: how many classes, the likeliest first; all if there are fewer. A multi-label model tells of every label
            that is likelier than not, also of more; a regression of all its values.
        clips, crops: test views along time and along the longer side; None: as the model's `ClipSpec` says.
        labels: names of the classes, or of the values; None: `model_labels(model)`.
        batch_size: views that run at once; None: as many as are about 32,000 tokens.
        errors: with several files, where to put the errors of those that can't be read: the others are done, and
            only they returned. None: the first is raised.

    Returns:
        A `Prediction` for a file, a list of them for several. Its start and end are those of the part that was seen.

    Raises:
        VideoReadError: a file can't be read.
        ValueError: the model does not give one row of logits a clip; or topk, clips, crops or labels make no sense.
    """
    model = checked(model, topk)
    names = _names(model, labels)
    one = is_one(path_or_paths)
    paths = cast("Iterable[Readable]", [path_or_paths] if one else path_or_paths)
    spec = clip_spec(model)
    spec = spec.with_views(clips, crops)
    predictions = []
    for path in paths:
        try:
            video = open_video(path, isolated=not one)
            seen = view_indices(video, spec)
            views = gather_views(video, seen, spec)
        except VideoReadError as error:
            if one or errors is None:
                raise
            errors.append(error)
            continue
        fused = OUTPUTS[spec.task].fuse(run_views(model, views, batch_size), spec.fuse)
        fps = video.fps or spec.fps
        times = _times(min(map(min, seen)), max(map(max, seen)) + 1, video.num_frames, fps) if fps else {}
        predictions.append(replace(tell(fused, spec.task, names, topk, video.path), **times))
    return predictions[0] if one else predictions


def predict_windows(
    model: nn.Module | str,
    path: Readable,
    topk: int = 5,
    crops: int | None = None,
    *,
    window: float | None = None,
    step: float | None = None,
    max_windows: int | None = None,
    labels: Labels | None = None,
    batch_size: int | None = None,
    errors: list[VideoReadError] | None = None,
) -> Iterator[Prediction]:
    """Classify a long video piece by piece; each prediction comes, with its start and end, as soon as it is there.

    The last window ends with the video, and may overlap the one before it. A video shorter than a window is one. The
    video is read once, from its first window to its last, and only a few batches of windows are in memory at a time.

    Args:
        model, topk, crops, labels, batch_size: as `predict` has them.
        path: a video file, as `open_video` takes it, read in another process (see `Video`, `isolated`), or a folder of
            its frames, whose times are those of the model's `ClipSpec.fps`.
        window: seconds of video that one prediction sees, frames being taken evenly from all of it; None: what a
            densely sampled clip of the model spans, sampled as the model was trained.
        step: seconds from one window to the next; None: the window, so that they touch.
        max_windows: of a video that has more, so many are taken, spread evenly; None: all.
        errors: where to put the errors of parts that can't be read, one a part: their windows are left out, and the
            others done. None: the first is raised.

    Raises:
        VideoReadError: the file can't be read, or has no frame rate and the model's spec none either.
        ValueError: as `predict`; or the model samples whole videos, so that `window` must be given.
    """
    windows = Windows(
        model,
        path,
        topk,
        crops,
        window=window,
        step=step,
        max_windows=max_windows,
        labels=labels,
        batch_size=batch_size,
    )
    return _predictions(windows, errors)


def _predictions(windows: Windows, errors: list[VideoReadError] | None) -> Iterator[Prediction]:
    for _, found in windows.run():
        if isinstance(found, Prediction):
            yield found
        elif errors is None:
            raise VideoReadError(found.reason)
        else:
            errors.append(VideoReadError(found.reason))


class Windows:
    """The windows of a video and a model that looks at them: `predict_windows`, whose arguments it takes, from inside.

    Args:
        overlap: where `step` is None, the share of a window that the next one sees, too.

    Attributes:
        model, video, spec, fps, labels: that count.
        starts: the first frame of each window; `length` frames it has.
        together: how many are a batch: results are those of a run from the start if one begins at a multiple of it.

    Raises: as `predict_windows`.
    """

    def __init__(
        self,
        model: nn.Module | str,
        path: Readable,
        topk: int,
        crops: int | None,
        *,
        window: float | None = None,
        step: float | None = None,
        overlap: float = 0.0,
        max_windows: int | None = None,
        labels: Labels | None = None,
        batch_size: int | None = None,
    ) -> None:
        self.model = checked(model, topk)
        self.labels, self._topk, self._batch_size = _names(self.model, labels), topk, batch_size
        spec = clip_spec(self.model).with_views(None, crops)
        for name, value in {"window": window, "step": step}.items():
            if value is not None and value <= 0:
                raise ValueError(f"{name} is {value}, expected a positive number of seconds")
        if max_windows is not None and max_windows < 1:
            raise ValueError(f"max_windows is {max_windows}, expected a whole number from 1 up")
        if window is None and spec.sampling == "uniform":
            raise ValueError("this model samples whole videos, of any length: give the window's length in seconds")
        self.video = video = open_video(path, isolated=True)
        fps = video.fps or spec.fps
        if not fps:
            raise VideoReadError(
                f"{video.path}: it has no frame rate, so its windows have no time; re-encode it with one"
            )
        self.fps, self.spec = fps, spec if window is None else replace(spec, sampling="uniform")
        seconds = window or spec.stride * spec.num_frames / (spec.fps or fps)
        length = max(1, round(seconds * fps))
        hop = max(1, round((step or seconds * (1 - overlap)) * fps))
        starts = list(range(0, max(video.num_frames - length, 0) + 1, hop))
        if starts[-1] + length < video.num_frames:
            starts.append(video.num_frames - length)
        if max_windows is not None and len(starts) > max_windows:
            starts = [starts[len(starts) * (2 * i + 1) // (2 * max_windows)] for i in range(max_windows)]
        self.starts, self.length = starts, min(length, video.num_frames)
        # Windows of one batch, so that small models do not run one at a time; few enough that the first come soon.
        self.together = max(1, (batch_size or min(_default_batch(self.model), 32)) // spec.crops)

    def run(self, first: int = 0) -> Iterator[tuple[int, Prediction | Gap]]:
        """Each window from `first` on, with its number; for neighbours that can't be read one gap, with the last's."""
        offsets = frame_indices(self.spec, self.length, self.video.fps)
        lost: list[tuple[int, VideoReadError]] = []  # frames since the last window that could be read
        following = first  # the window after that
        for batch in ahead(stream_windows(self.video, self.starts, offsets, self.spec, self.together, first)):
            lost += sorted(batch.lost.items())
            if lost and "://" in self.video.path:  # a connection that fails is no damage: the rest would be a gap, too
                raise lost[0][1]
            fused = self._fused(batch.views)
            for number, row in zip(batch.windows, fused, strict=True):
                if number > following:
                    yield number - 1, self._gap(lost, following, number)
                    # A later batch's windows share frames that were read, and found lost, with this one's.
                    lost = [entry for entry in lost if entry[0] >= self.starts[number]]
                following = number + 1
                start = self.starts[number]
                times = _times(start, start + self.length, self.video.num_frames, self.fps)
                yield number, replace(tell(row, self.spec.task, self.labels, self._topk, self.video.path), **times)
        if following < len(self.starts):
            yield len(self.starts) - 1, self._gap(lost, following, len(self.starts))
        self.video.close()

    def _fused(self, views: torch.Tensor) -> list[torch.Tensor]:
        if not len(views):
            return []
        rows = torch.split(run_views(self.model, views, self._batch_size), self.spec.crops)
        return [OUTPUTS[self.spec.task].fuse(row, self.spec.fuse) for row in rows]

    def _gap(self, lost: Sequence[tuple[int, VideoReadError]], first: int, stop: int) -> Gap:
        """From the first lost frame to the last, or to where the next window begins, if that is later."""
        end = self.starts[stop] if stop < len(self.starts) else self.video.num_frames
        frames = [frame for frame, _ in lost if frame < self.starts[stop - 1] + self.length]
        begins, ends = frames[0] / self.fps, max(frames[-1] + 1, end) / self.fps
        reason = str(lost[0][1]).removeprefix(f"{self.video.path}: ")
        return Gap(begins, ends, f"{self.video.path}: {begins:.2f} to {ends:.2f} s can't be read: {reason}")


def _times(first: int, stop: int, total: int, fps: float) -> dict[str, Any]:
    return {"start": first / fps, "end": stop / fps, "duration": total / fps}


def fuse_views(logits: torch.Tensor, how: str) -> torch.Tensor:
    """One video's views (V, num_classes) as its log-probabilities (num_classes).

    Args:
        how: "logits": softmax of their sum (the authors' code sums them), surer the more views there are;
            "softmax": the mean of each view's softmax (the paper, section 4).
    """
    if how == "logits":
        return logits.sum(0).log_softmax(-1)
    return logits.log_softmax(-1).logsumexp(0) - math.log(len(logits))


@dataclass(frozen=True)
class Output:
    """What a model's outputs mean, for one kind of target."""

    fuse: Callable[[torch.Tensor, str], torch.Tensor]  # views (V, K), `ClipSpec.fuse` -> probabilities or values (K,)
    scores: Callable[[torch.Tensor, int], int]  # of these, how many are told with their names; 0: all as values


def _likelier_than_not(probabilities: torch.Tensor, topk: int) -> int:
    return max(topk, int((probabilities >= 0.5).sum()))


OUTPUTS: dict[str, Output] = {
    "classes": Output(lambda views, how: fuse_views(views, how).exp(), lambda probabilities, topk: topk),
    "multilabel": Output(lambda views, how: views.sigmoid().mean(0), _likelier_than_not),
    "regression": Output(lambda views, how: views.mean(0), lambda values, topk: 0),
}
"""`ClipSpec.task` -> how a model's outputs are understood."""


def tell(fused: torch.Tensor, task: str, names: Sequence[str], topk: int, path: str = "") -> Prediction:
    """What probabilities or values (K,) say, by the kind of target that they are for."""
    count = min(OUTPUTS[task].scores(fused, topk), len(names))
    values = {} if count else dict(zip(names, fused.tolist(), strict=True))
    best, indices = (part.tolist() for part in fused.topk(count))
    top = tuple(Score(names[index], value, index) for value, index in zip(best, indices, strict=True))
    return Prediction(path, top, task=task, values=values)


def run_views(model: TimeSformer, views: torch.Tensor, batch_size: int | None) -> torch.Tensor:
    """(V, C, T, H, W) -> (V, num_classes), float32, on the CPU."""
    weight = model.pos_embed
    with inference(model):
        parts = [
            model(part.to(device=weight.device, dtype=weight.dtype)).float().cpu()
            for part in torch.split(views, batch_size or _default_batch(model))
        ]
    return torch.cat(parts)


def _default_batch(model: TimeSformer) -> int:
    frames, rows, columns = model.grid_size
    return max(1, _MAX_TOKENS // (frames * rows * columns))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode; afterwards every module is in the mode it was in, also of a half-frozen model."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def inference(model: nn.Module) -> Iterator[None]:
    """Evaluation without gradients; afterwards modes are as they were."""
    with evaluating(model), torch.inference_mode():
        yield


def checked(model: nn.Module | str, topk: int = 1) -> TimeSformer:
    """The model, loaded if it is a name, where it can label a video. Raises ValueError or TypeError otherwise."""
    if topk < 1:
        raise ValueError(f"topk is {topk}, expected a whole number from 1 up")
    model = load_model(model) if isinstance(model, str) else expect_timesformer(model)
    if not model.num_classes:
        raise ValueError("the model has no head (num_classes is 0): call reset_classifier, and train it")
    if model.global_pool not in ("token", "avg"):
        raise ValueError(
            f"the model gives logits for each frame or token (global_pool is {model.global_pool!r}), not for a video"
        )
    return model


def _names(model: TimeSformer, labels: Labels | None) -> list[str]:
    return model_labels(model) if labels is None else label_names(labels, model.num_classes)
