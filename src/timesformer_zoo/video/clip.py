"""What a clip is, and which frames of a video it has. Pure: no files, no decoder.

`ClipSpec` is data and travels with a model; `frame_indices` is the index arithmetic, which follows the authors'
published sampling: the tests hold it to its output.

Legend: T frames, H W pixels.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from itertools import pairwise
from typing import Any

import torch
from torchvision.transforms.functional import rgb_to_grayscale

__all__ = ["ClipSpec", "clip_spec", "frame_indices"]

_CHOICES = {
    "sampling": ("dense", "uniform"),
    "fuse": ("logits", "softmax"),
    "task": ("classes", "multilabel", "regression"),
}


@dataclass(frozen=True)
class ClipSpec:
    """How a model's clips are sampled, cropped, normalised and fused. Plain values only, so it survives JSON.

    Raises:
        ValueError: a field that makes no sense; the message says which, what it got and what it takes.
    """

    num_frames: int = 8  # T
    stride: int = 32  # dense sampling: every stride-th frame, counted at `fps`
    fps: float | None = 30.0  # frame rate that `stride` counts at; None or 0: the video's own
    sampling: str = "dense"  # "dense": a window of T * stride frames; "uniform": T equal segments of the whole video
    size: tuple[int, int] = (224, 224)  # crop (H, W); one int means a square
    in_chans: int = 3  # of the model's input: 3, or 1 for grey; frames of a video become no other number
    mean: tuple[float, ...] = (0.45, 0.45, 0.45)  # of the channels in [0, 1], in the order the model sees
    std: tuple[float, ...] = (0.225, 0.225, 0.225)  # as mean: one number is for all; of three, grey has the grey's
    bgr: bool = False  # channel order of the model's input: the official SSv2 weights expect BGR
    clips: int = 1  # test views: clips along time ...
    crops: int = 3  # ... times crops along the longer side
    jitter: tuple[int, int] | None = None  # training: range of the short side; None: 8/7 to 10/7 of the crop's
    flip: bool = True  # training: mirror half of the clips (off where left and right are labels, as in SSv2)
    task: str = (
        "classes"  # outputs: "classes" (one is right), "multilabel" (each is there or not), "regression" (values)
    )
    fuse: str = (
        "logits"  # views of classes: "logits" (their sum, official) or "softmax" (the mean, paper); else the mean
    )
    labels: str | None = None  # name of a label set
    windows: bool = False  # a video is labelled window by window (a clip is a moment of it), not once as a whole

    def __post_init__(self) -> None:
        size = (self.size, self.size) if isinstance(self.size, int) else self.size
        for name, value in (("size", size), ("mean", self.mean), ("std", self.std), ("jitter", self.jitter)):
            object.__setattr__(self, name, None if value is None else tuple(value))  # JSON gives lists
        for name, allowed in _CHOICES.items():
            _require(getattr(self, name) in allowed, name, getattr(self, name), " or ".join(map(repr, allowed)))
        for name in ("num_frames", "stride", "clips", "crops", "in_chans"):
            _require(_whole(getattr(self, name)), name, getattr(self, name), "a whole number from 1 up")
        _require(self.fps is None or 0 <= self.fps < math.inf, "fps", self.fps, "a positive rate, or None")
        _require(len(self.size) == 2 and all(map(_whole, self.size)), "size", self.size, "(height, width) in pixels")
        for name in ("mean", "std"):
            object.__setattr__(self, name, _of_channels(getattr(self, name), self.in_chans, self.bgr))
        # A model of other channels may have kept those of the weights that it started from.
        channels = 3 if self.in_chans not in (1, 3) and len(self.mean) == 3 else self.in_chans
        _require(len(self.mean) == channels, "mean", self.mean, f"{channels} numbers, one a channel")
        positive = len(self.std) == channels and min(self.std) > 0
        _require(positive, "std", self.std, f"{channels} positive numbers, one a channel")
        low, high = self.jitter_range if self.jitter is None or len(self.jitter) == 2 else (0, 0)
        _require(
            min(self.size) <= low <= high,
            "jitter",
            self.jitter,
            f"(low, high) with {min(self.size)} (the crop's short side) <= low <= high, or None",
        )

    @property
    def jitter_range(self) -> tuple[int, int]:
        """Range of the frame's short side in training, in pixels: (256, 320) for a crop of 224, as in the paper."""
        side = min(self.size)
        return self.jitter if self.jitter is not None else (round(side * 8 / 7), round(side * 10 / 7))

    @property
    def sampling_in_words(self) -> str:
        """Which frames a clip is made of, for people: "every 32nd frame", or "over the whole video"."""
        if self.sampling == "uniform":
            return "over the whole video"
        if self.stride == 1:
            return "every frame"
        teen = self.stride % 100 in (11, 12, 13)
        suffix = "th" if teen else {1: "st", 2: "nd", 3: "rd"}.get(self.stride % 10, "th")
        return f"every {self.stride}{suffix} frame"

    def with_views(self, clips: int | None, crops: int | None) -> "ClipSpec":
        """The spec with another number of test views; None: as it is."""
        return replace(self, clips=self.clips if clips is None else clips, crops=self.crops if crops is None else crops)

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON has them (lists, not tuples); `from_dict` reads them back."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ClipSpec":
        """A spec from some or all fields; the others keep their defaults.

        Raises:
            ValueError: an unknown field, or a value that makes no sense.
        """
        known = [f.name for f in fields(cls)]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ValueError(f"ClipSpec has no field {', '.join(map(repr, unknown))}; it has {', '.join(known)}")
        return cls(**values)


def _of_channels(values: tuple[float, ...], channels: int, bgr: bool) -> tuple[float, ...]:
    """Mean or std of so many channels: that of one is for all, and of three colours their grey has the grey."""
    if len(values) == 1 or (channels == 1 and len(set(values)) == 1):
        return values[:1] * channels
    if channels != 1 or len(values) != 3:
        return values
    colours = torch.tensor(values[::-1] if bgr else values, dtype=torch.float64)
    return (rgb_to_grayscale(colours.view(3, 1, 1)).item(),)


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _require(holds: bool, name: str, got: object, expected: str) -> None:
    if not holds:
        raise ValueError(f"ClipSpec.{name} is {got!r}, expected {expected}")


def clip_spec(model_or_spec: Any) -> ClipSpec:
    """The spec of a model: its frames and size, its pretrained mean and std, then whatever `model.clip` says.

    A ClipSpec is returned as it is, so functions that take either call this.

    Raises:
        TypeError: neither a ClipSpec nor a model with `num_frames` and `img_size`.
        ValueError: `model.clip` has an unknown field or a value that makes no sense.
    """
    if isinstance(model_or_spec, ClipSpec):
        return model_or_spec
    model = model_or_spec
    if not hasattr(model, "num_frames") or not hasattr(model, "img_size"):
        raise TypeError(f"expected a ClipSpec or a model with num_frames and img_size, got {type(model).__name__}")
    values: dict[str, Any] = {
        "num_frames": model.num_frames,
        "size": model.img_size,
        "in_chans": getattr(model, "in_chans", 3),
    }
    cfg = getattr(model, "pretrained_cfg", None) or {}
    for name in ("mean", "std"):
        value = cfg.get(name) if isinstance(cfg, Mapping) else getattr(cfg, name, None)
        if value is not None:
            values[name] = value
    return ClipSpec.from_dict({**values, **(getattr(model, "clip", None) or {})})


def frame_indices(
    spec: ClipSpec,
    total: int,
    fps: float | None,
    *,
    clip: int = 0,
    num_clips: int = 1,
    training: bool = False,
    generator: torch.Generator | None = None,
) -> list[int]:
    """The `spec.num_frames` indices of one clip in a video of `total` frames, in order; a short video repeats its last.

    Dense: a window of T * stride / spec.fps seconds; in test, window `clip` of `num_clips` starts at that share of the
    slack (a single clip starts at frame 0), in training anywhere. Uniform: one frame from each of T equal segments;
    in test the middle (of `num_clips` equal parts of the segment, the `clip`-th), in training anywhere.

    Args:
        total: number of frames in the video, at least 1.
        fps: the video's average frame rate, also where it varies; None, 0 or NaN (unknown) is taken as `spec.fps`.
        generator: source of randomness in training; None: torch's global one.

    Raises:
        ValueError: no frames, or a clip that does not exist.
    """
    if total < 1:
        raise ValueError(f"a clip needs a video of at least 1 frame, got {total}")
    if not 0 <= clip < num_clips:
        raise ValueError(f"clip is {clip}, expected 0 to {num_clips - 1} (num_clips is {num_clips})")
    if spec.sampling == "uniform":
        return _uniform(spec.num_frames, total, clip, num_clips, training, generator)
    span = float(spec.stride * spec.num_frames)
    if spec.fps and fps and 0 < fps < math.inf:
        span = span / spec.fps * fps
    share = torch.rand((), generator=generator).item() if training else clip / num_clips
    # A frame is in the window if it starts in it, hence up; 1e-6: a slack of 36.67 times 9/10 is 33, not 33.000001.
    start = math.ceil(max(total - span, 0) * share - 1e-6)
    # float32 like the official code: which side of a whole number a step falls decides the frame.
    steps = torch.linspace(0, max(span - 1, 0), spec.num_frames).long()
    return (steps + start).clamp(max=total - 1).tolist()


def _uniform(
    num_frames: int, total: int, clip: int, num_clips: int, training: bool, generator: torch.Generator | None
) -> list[int]:
    edges = [round((total - 1) / num_frames * i) for i in range(num_frames + 1)]
    indices = []
    for low, high in pairwise(edges):
        if training:
            indices.append(int(torch.randint(low, high + 1, (), generator=generator)))
        else:
            indices.append(low + (high - low) * (2 * clip + 1) // (2 * num_clips))
    return indices
