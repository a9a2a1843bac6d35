"""One call from a model and a video to what in it speaks for a class.

Legend: C channels, T frames, H W pixels, h w patch rows and columns.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from timesformer_zoo.errors import VideoReadError
from timesformer_zoo.explanation.flow import relevance, rollout
from timesformer_zoo.explanation.gradients import gradients, integrated_gradients
from timesformer_zoo.explanation.save import save
from timesformer_zoo.labels import Labels, label_names, model_labels
from timesformer_zoo.model.timesformer import TimeSformer
from timesformer_zoo.prediction import OUTPUTS, checked, evaluating, run_views, tell
from timesformer_zoo.results import Prediction
from timesformer_zoo.video.clip import ClipSpec, clip_spec, frame_indices
from timesformer_zoo.video.origin import Readable
from timesformer_zoo.video.reader import Frames, open_video
from timesformer_zoo.video.transform import Box, crop_boxes, crop_views

__all__ = ["EXPLANATIONS", "Explanation", "ExplanationMethod", "explain"]

_SHORT = 480  # pixels; of larger frames an explanation keeps a smaller picture: 96 of 4K would be 2.4 GB


@dataclass(frozen=True)
class ExplanationMethod:
    """A way to explain an output of a model."""

    of: Callable[[nn.Module, torch.Tensor, int], torch.Tensor]  # model, clip (1, C, T, H, W), class -> (1, T, h, w)
    tells: str  # what the map is, for a title
    scale: str  # what a patch of a high value does, for a legend
    one_for_all: bool = False  # it is the same for every class


EXPLANATIONS = {
    "relevance": ExplanationMethod(relevance, "relevance, by attention and its gradient", "speaks for it"),
    "rollout": ExplanationMethod(
        lambda model, clip, _: rollout(model, clip),
        "attention rollout, the same for every class",
        "reaches the head",
        one_for_all=True,
    ),
    "gradients": ExplanationMethod(gradients, "size of the gradient", "moves it"),
    "integrated_gradients": ExplanationMethod(
        integrated_gradients, "share in the logit, by integrated gradients", "speaks for it"
    ),
}
"""`explain(method=…)` -> how it is done."""


@dataclass(frozen=True, eq=False)
class Explanation:
    """What in a clip speaks for a class, and all that a picture of it needs."""

    path: str  # of the video
    method: str  # a key of EXPLANATIONS
    label: str  # that is explained; by a method that is the same for every class, too
    class_index: int
    probability: float | None  # of the label, of this clip's centre crop; None: of a value, which has none
    prediction: Prediction  # of the same crop
    map: torch.Tensor  # (T, h, w) float32, on the CPU; of integrated gradients below 0 where it speaks against
    frames: torch.Tensor  # (T, H, W, 3) uint8, RGB: as sampled, uncropped; of over 480 pixels a side, smaller
    box: Box  # where in a frame the map lies, in pixels of `frames`
    times: tuple[float, ...] | None  # of each frame, seconds; None: the video has no frame rate

    @property
    def time_weights(self) -> torch.Tensor:
        """(T,): the share of each frame in all that speaks for the class; 0 everywhere if nothing does."""
        weights = self.map.clamp(min=0).sum((1, 2))
        return weights / weights.sum().clamp(min=torch.finfo(weights.dtype).tiny)

    @property
    def words(self) -> tuple[str, str]:
        """What the map is, for a title; and what a patch of a high value does, for a legend."""
        return EXPLANATIONS[self.method].tells, EXPLANATIONS[self.method].scale

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write it as a picture: the clip beside its overlay, with the times of frames and their weights.

        Args:
            path: .png: all frames as a grid; .gif or .mp4: one after the other; .html: a page with both, which needs no
                other file and no network.

        Returns:
            The path.

        Raises:
            ValueError: another suffix.
            ModuleNotFoundError: matplotlib is not installed: pip install 'timesformer-zoo[plots]'.
            WriteError: it could not be written.
        """
        return save(self, path)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; the map and the frames, which are large, are left out."""
        return {
            "method": self.method,
            "label": self.label,
            "class_index": self.class_index,
            "probability": self.probability,
            "box": self.box._asdict(),
            "size": list(self.frames.shape[1:3]),
            "times": None if self.times is None else list(self.times),
            "time_weights": self.time_weights.tolist(),
            "prediction": self.prediction.to_dict(),
        }


def explain(
    model: nn.Module | str,
    path: Readable,
    label: str | None = None,
    method: str = "relevance",
    *,
    start: float | None = None,
    end: float | None = None,
    labels: Labels | None = None,
    topk: int = 5,
) -> Explanation:
    """What in a video speaks for a class.

        explain("timesformer_tiny_divided.camera_motion", "clip.mp4", label="pan left").save("clip.gif")

    One view is explained, the centre crop of a clip; its prediction goes with it, and may differ from that of
    `predict`, which fuses all test views.

    Args:
        model: a TimeSformer; runs where its weights are, in evaluation mode, and is left as it was. A name is loaded by
            `load_model`.
        path: a video, as `open_video` takes it; read in another process (see `Video`, `isolated`).
        label: a class's name, or that of a value; None: the likeliest class.
        method: "relevance" (of the class: attention and its gradients, Chefer et al.), "rollout" (attention alone, the
            same for every class), "gradients", or "integrated_gradients" (needs Captum).
        start, end: seconds of the part that is looked at. Of a part that has an end, frames are taken evenly from all
            of it; else the clip is the model's, from `start` on.
        labels: names of the classes, or of the values; None: `model_labels(model)`.
        topk: of the prediction.

    Raises:
        ModuleNotFoundError: "integrated_gradients" without Captum: pip install 'timesformer-zoo[captum]'.
        VideoReadError: the video can't be read, or ends before `start`.
        ValueError: no such label or method; start and end make no sense, or the video has no frame rate; or the model
            does not give one row of logits a clip.
    """
    if method not in EXPLANATIONS:
        raise ValueError(f"method is {method!r}, expected one of {', '.join(EXPLANATIONS)}")
    if (start or 0) < 0 or (end is not None and not (start or 0) < end):
        raise ValueError(f"start is {start} and end {end}, expected seconds with 0 <= start < end")
    model = checked(model, topk)
    names = model_labels(model) if labels is None else label_names(labels, model.num_classes)
    if label is not None:
        _index(label, names)  # before the video is read
    spec = replace(clip_spec(model), crops=1)
    video = open_video(path, isolated=True)
    indices = _indices(video, spec, start, end)
    frames: dict[int, torch.Tensor] = {}
    views, size = _read(video, indices, spec, frames)
    fps = video.fps or spec.fps
    part: dict[str, Any] = {}
    if fps:
        part = {"start": min(indices) / fps, "end": (max(indices) + 1) / fps, "duration": video.num_frames / fps}
    outputs = run_views(model, views, None)
    fused = OUTPUTS[spec.task].fuse(outputs, spec.fuse)
    prediction = replace(tell(fused, spec.task, names, topk, video.path), **part)
    index = _index(label, names) if label is not None else _likeliest(prediction, names)
    weight = model.pos_embed
    with evaluating(model):
        found = EXPLANATIONS[method].of(model, views.to(device=weight.device, dtype=weight.dtype), index)
    pictures = torch.stack([frames[i] for i in indices])
    return Explanation(
        path=video.path,
        method=method,
        label=names[index],
        class_index=index,
        probability=None if spec.task == "regression" else fused[index].item(),
        prediction=prediction,
        map=found[0].float().cpu(),
        frames=pictures,
        box=_box(model, spec, size, pictures),
        times=tuple(i / fps for i in indices) if fps else None,
    )


def _index(label: str, names: Sequence[str]) -> int:
    """Of a class, by its name, whatever its case. Raises ValueError, which lists names that are like it."""
    if label in names:
        return list(names).index(label)
    lower = [name.lower() for name in names]
    if lower.count(label.lower()) == 1:
        return lower.index(label.lower())
    words = [i for i, name in enumerate(lower) if label.lower() in name]
    near = [lower.index(name) for name in get_close_matches(label.lower(), lower, n=5, cutoff=0.5)]
    found = [names[i] for i in dict.fromkeys([*near, *words])][:8]
    listed = found or names[:8]
    more = ", …" if not found and len(names) > len(listed) else ""
    raise ValueError(
        f"label is {label!r}, which is none of the model's {len(names)}; "
        f"{'near it are' if found else 'they are'} {', '.join(map(repr, listed))}{more}"
    )


def _likeliest(prediction: Prediction, names: Sequence[str]) -> int:
    if prediction.top:
        return prediction.top[0].class_index
    if len(names) == 1:
        return 0
    raise ValueError(f"the model gives values, none of which is the likeliest: give a label, one of {', '.join(names)}")


def _indices(video: Frames, spec: ClipSpec, start: float | None, end: float | None) -> list[int]:
    """Of the clip's frames in the video."""
    if start is None and end is None:
        return frame_indices(spec, video.num_frames, video.fps)
    fps = video.fps or spec.fps
    if not fps:
        raise ValueError(f"{video.path}: it has no frame rate, so start and end mean nothing; leave them out")
    first, duration = start or 0.0, video.num_frames / fps
    if first >= duration:
        raise VideoReadError(f"{video.path}: it ends at {duration:.2f} s, before the part from {first:g} s on")
    stop = duration if end is None else end
    low = min(round(first * fps), video.num_frames - 1)
    high = max(min(round(stop * fps), video.num_frames), low + 1)
    if end is not None:
        spec = replace(spec, sampling="uniform")
    return [low + i for i in frame_indices(spec, high - low, video.fps)]


def _read(
    video: Frames, indices: Sequence[int], spec: ClipSpec, frames: dict[int, torch.Tensor]
) -> tuple[torch.Tensor, tuple[int, int]]:
    """The centre crop (1, C, T, H, W), and a frame's size as decoded. `frames` gets a picture of each, by index."""
    size = [(0, 0)]

    def passing() -> Iterator[torch.Tensor]:
        for index, frame in zip(sorted(set(indices)), video.stream(indices), strict=True):
            size[0] = (frame.shape[0], frame.shape[1])
            frames[index] = _smaller(frame)
            yield frame
        video.close()

    views = crop_views(passing(), spec)
    place = {index: t for t, index in enumerate(frames)}
    return views[:, :, [place[index] for index in indices]], size[0]


def _smaller(frame: torch.Tensor) -> torch.Tensor:
    """(H, W, 3), its short side at most _SHORT."""
    height, width = frame.shape[:2]
    if min(height, width) <= _SHORT:
        return frame
    scale = _SHORT / min(height, width)
    image = frame.permute(2, 0, 1)[None]
    image = F.interpolate(image, (round(height * scale), round(width * scale)), mode="bilinear", antialias=True)
    return image[0].permute(1, 2, 0)


def _box(model: TimeSformer, spec: ClipSpec, size: tuple[int, int], pictures: torch.Tensor) -> Box:
    """Where the map lies in the pictures: the crop, and what a model that pads puts to its right and below."""
    (box,) = crop_boxes(*size, spec)
    y, x = pictures.shape[1] / size[0], pictures.shape[2] / size[1]
    rows, columns = model.patch_grid(*spec.size)
    high, wide = (
        n * patch / pixels for n, patch, pixels in zip((rows, columns), model.patch_size, spec.size, strict=True)
    )
    return Box(box.top * y, box.left * x, box.height * y * high, box.width * x * wide)
