"""What a clip is: which frames of a video a model sees, and how pixels become its input. Pure: no files, no decoder.

`ClipSpec` is data and travels with a model; `frame_indices` is the index arithmetic; `crop_views` and `clip_transform`
turn bytes into floats. Values and order of operations follow the authors' published preprocessing, and the tests hold
them to its output.

Legend: V views, C channels, T frames, H W pixels.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torchvision.transforms.functional import rgb_to_grayscale

__all__ = ["ClipSpec", "clip_spec", "clip_transform", "crop_views", "frame_indices"]

_CHUNK_BYTES = 2**25  # of frames that are resized at once
_CHOICES = {"sampling": ("dense", "uniform"), "fuse": ("logits", "softmax")}


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
    fuse: str = "logits"  # views -> prediction: "logits" (their sum, official) or "softmax" (the mean, paper)
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


def clip_transform(
    model_or_spec: Any, training: bool = False, *, generator: torch.Generator | None = None
) -> "ClipTransform":
    """The transform from decoded frames to one model input: `(T, H, W, 3) uint8 -> (C, T, H, W) float32`.

    C is 3, or for a model of one channel 1: the frames' grey (ITU-R BT.601, as torchvision's `rgb_to_grayscale`).

    In test, the centre crop of the frame scaled to the crop's size; in training, a random scale (`jitter`), a random
    crop and, half of the time, a mirror image, each drawn once a clip. For all test views at once see `crop_views`.

    Args:
        model_or_spec: a ClipSpec, or a model that `clip_spec` understands.
        generator: source of randomness in training; None: torch's global one (which a DataLoader seeds a worker).

    Raises:
        ValueError: the model takes neither 3 channels nor 1.
    """
    spec = clip_spec(model_or_spec)
    _check_channels(spec)
    return ClipTransform(spec, training, generator)


@dataclass(frozen=True)
class ClipTransform:
    """What `clip_transform` returns; a class and no closure, so that a DataLoader's workers can unpickle it."""

    spec: ClipSpec
    training: bool = False
    generator: torch.Generator | None = None

    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        """`(T, H, W, 3) uint8 -> (C, T, H, W) float32`; any T, any H and W."""
        _check_frames(frames)
        if not self.training:
            return crop_views(frames, replace(self.spec, crops=1))[0]
        scale, y, x, mirror = torch.rand(4, generator=self.generator).tolist()
        low, high = self.spec.jitter_range
        images = _resize_all(frames, self.spec.size, short=round(low + scale * (high - low)))
        (height, width), (h, w) = self.spec.size, images.shape[-2:]
        # Both ends of the slack are possible, each place equally likely; torch.rand is below 1.
        top, left = int(y * (h - height + 1)), int(x * (w - width + 1))
        clip = _crop_and_normalise(images, [(top, left)], self.spec)[0]
        return clip.flip(-1) if self.spec.flip and mirror < 0.5 else clip


def crop_views(frames: Iterable[torch.Tensor], spec: ClipSpec) -> torch.Tensor:
    """The `spec.crops` test crops of a clip: frames, each `(H, W, 3) uint8` -> `(crops, C, T, H, W) float32`.

    The frame is scaled to cover `spec.size` (for a square: its short side becomes the crop's, the other side is
    floored), bilinearly on floats without antialiasing; the crops are spread evenly along the longer side, first to
    last. One crop is the centre.

    Args:
        frames: a `(T, H, W, 3)` tensor, or an iterable of frames: each is resized as it comes, so that long clips of
            large frames need not be in memory at once.
        spec: C is its `in_chans`, 3, or 1 for grey.

    Raises:
        TypeError: a frame is no tensor.
        ValueError: there is none, or one is not as said; or the spec's `in_chans` is neither 3 nor 1.
    """
    _check_channels(spec)
    if isinstance(frames, torch.Tensor):
        _check_frames(frames)
    images = _resize_all(frames, spec.size)
    return _crop_and_normalise(images, _offsets(images, spec), spec)


def _check_channels(spec: ClipSpec) -> None:
    if spec.in_chans not in (1, 3):
        raise ValueError(
            f"the model takes {spec.in_chans} channels, expected 3 (RGB) or 1 (grey), which are what frames of a video "
            f"become: make its input, (B, {spec.in_chans}, T, H, W), yourself"
        )


def _check_frames(frames: torch.Tensor, ndim: int = 4) -> None:
    expected = f"a uint8 tensor {'(T, H, W, 3), as read_clip returns' if ndim == 4 else '(H, W, 3)'}"
    what = "frames are" if ndim == 4 else "a frame is"
    if not isinstance(frames, torch.Tensor):
        raise TypeError(f"{what} of type {type(frames).__name__}, expected {expected}; torch.from_numpy takes an array")
    if frames.dtype != torch.uint8 or frames.ndim != ndim or frames.shape[-1] != 3 or 0 in frames.shape[-3:]:
        raise ValueError(f"{what} {tuple(frames.shape)} {frames.dtype}, expected {expected}")


def _resize_all(frames: Iterable[torch.Tensor], size: tuple[int, int], short: int = 0) -> torch.Tensor:
    """T frames, each (H, W, C) uint8 -> (T, C, h, w), some at a time.

    Not one by one: where frames are decoded as they are taken, the threads that resized one would wait for the next by
    spinning, on the cores that the decoder needs. Not all at once: floats of 96 large frames are gigabytes.
    """
    resized: list[torch.Tensor] = []
    waiting: list[torch.Tensor] = []
    for frame in frames:
        _check_frames(frame, 3)
        waiting.append(frame)
        if frame.numel() * len(waiting) >= _CHUNK_BYTES:
            resized.append(_resize(torch.stack(waiting), size, short))
            waiting.clear()
    if waiting:
        resized.append(_resize(torch.stack(waiting), size, short))
    if not resized:
        raise ValueError("got no frames, expected at least 1")
    return torch.cat(resized) if len(resized) > 1 else resized[0]


def _resize(frames: torch.Tensor, size: tuple[int, int], short: int = 0) -> torch.Tensor:
    """(T, H, W, C) uint8 -> (T, C, h, w) float in 0..255 that covers `size` and, if larger, has the short side."""
    height, width = frames.shape[1:3]
    need_h = max(size[0], short) if height <= width else size[0]
    need_w = max(size[1], short) if width <= height else size[1]
    # One side is met exactly; the other follows the aspect ratio and is floored (never below what it must cover).
    if need_h * width >= need_w * height:
        h, w = need_h, width if need_h == height else max(need_w, math.floor(width / height * need_h))
    else:
        h, w = height if need_w == width else max(need_h, math.floor(height / width * need_w)), need_w
    images = frames.permute(0, 3, 1, 2).float()  # channels-last in memory: interpolate takes it without a copy
    if (h, w) != (height, width):
        images = F.interpolate(images, size=(h, w), mode="bilinear", align_corners=False)
    return images


def _offsets(images: torch.Tensor, spec: ClipSpec) -> list[tuple[int, int]]:
    """(top, left) of each crop. At most one side has slack: the other was resized to fit."""
    slack_y, slack_x = images.shape[-2] - spec.size[0], images.shape[-1] - spec.size[1]
    places = [(1, 2)] if spec.crops == 1 else [(i, spec.crops - 1) for i in range(spec.crops)]
    return [(math.ceil(slack_y * i / n), math.ceil(slack_x * i / n)) for i, n in places]


def _crop_and_normalise(images: torch.Tensor, offsets: list[tuple[int, int]], spec: ClipSpec) -> torch.Tensor:
    """(T, C, h, w) in 0..255 -> (V, C, T, H, W) normalised."""
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (spec.mean, spec.std))
    clip = images if spec.in_chans == 3 else rgb_to_grayscale(images)
    if spec.bgr:
        clip = clip.flip(1)
    clip.mul_(1 / (255 * std)).sub_(mean / std)  # (x / 255 - mean) / std; in place, and once for all crops
    clip = clip.transpose(0, 1)
    height, width = spec.size
    return torch.stack([clip[..., top : top + height, left : left + width] for top, left in offsets])
