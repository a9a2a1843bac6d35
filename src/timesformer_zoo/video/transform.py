"""How decoded pixels become a model's input: scaled, cropped, normalised. Pure: no files, no decoder.

Values and order of operations follow the authors' published preprocessing, and the tests hold them to its output. Test
views are computed in floats, as theirs. A training clip, which is random anyway, stays bytes until it is on the device
(`random_crop`, then `normalize_clips`): a quarter of the memory and of what is sent, at most one grey level off.

Legend: V views, C channels, T frames, H W pixels.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torchvision.transforms.functional import rgb_to_grayscale

from timesformer_zoo.video.clip import ClipSpec, clip_spec
from timesformer_zoo.video.pixels import Pixels, neighbours, pixels_of

__all__ = [
    "Box",
    "ClipTransform",
    "clip_transform",
    "crop_boxes",
    "crop_views",
    "normalize_clips",
    "random_crop",
    "view_pixels",
]

_CHUNK_BYTES = 2**25  # of frames that are resized at once


def clip_transform(
    model_or_spec: Any, training: bool = False, *, generator: torch.Generator | None = None
) -> "ClipTransform":
    """The transform from decoded frames to one model input: `(T, H, W, 3) uint8 -> (C, T, H, W) float32`.

    C is 3, or for a model of one channel 1: the frames' grey (ITU-R BT.601, as torchvision's `rgb_to_grayscale`).

    In test, the centre crop of the frame scaled to the crop's size; in training, a random scale (`jitter`), a random
    crop and, half of the time, a mirror image, each drawn once a clip, in whole grey levels, as a `VideoDataset` gives
    them. For all test views at once see `crop_views`.

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
        if not len(frames):
            raise ValueError("got no frames, expected at least 1")
        clip = torch.empty(3, len(frames), *self.spec.size, dtype=torch.uint8)
        return normalize_clips(random_crop(frames, self.spec, clip, self.generator), self.spec)


def random_crop(
    frames: Iterable[torch.Tensor], spec: ClipSpec, out: torch.Tensor, generator: torch.Generator | None = None
) -> torch.Tensor:
    """One training clip, drawn as `clip_transform` says, written into `out`: (3, T, H, W) uint8.

    Each frame is resized and cropped, in bytes, before the next is taken: never are all of them in memory. A value is
    at most one grey level from that of floats, rounded.

    Args:
        frames: T of them, each (H, W, 3) uint8, all of one size, as they are decoded.

    Returns:
        `out`.

    Raises:
        TypeError, ValueError: a frame is not as said, or the spec's `in_chans` is neither 3 nor 1.
    """
    _check_channels(spec)
    scale, y, x, mirror = torch.rand(4, generator=generator).tolist()
    low, high = spec.jitter_range
    height, width = spec.size
    for place, frame in zip(out.unbind(1), frames, strict=True):
        _check_frames(frame, 3)
        image = _resize(frame[None], spec.size, short=round(low + scale * (high - low)))[0]
        # Both ends of the slack are possible, each place equally likely; torch.rand is below 1.
        top, left = int(y * (image.shape[1] - height + 1)), int(x * (image.shape[2] - width + 1))
        place.copy_(image[:, top : top + height, left : left + width])
    return out.copy_(out.flip(-1)) if spec.flip and mirror < 0.5 else out


def normalize_clips(clips: torch.Tensor, model_or_spec: Any) -> torch.Tensor:
    """The training clips of a `VideoDataset`, normalised where they are: the last step, to be done on the device.

        for batch in loader:
            clips = normalize_clips(batch.clips.flatten(0, 1).to(device), model)  # (B, 3, T, H, W) -> (B, C, T, H, W)

    What `clip_transform` does of itself: to [0, 1], to grey for a model of one channel, to BGR where the spec says so,
    less the mean, by the standard deviation.

    Args:
        clips: `(..., 3, T, H, W) uint8`, RGB, on any device. Test views are normalised already.
        model_or_spec: a ClipSpec, or a model that `clip_spec` understands.

    Returns:
        `(..., C, T, H, W) float32` on the same device.

    Raises:
        TypeError: `clips` is no tensor.
        ValueError: it is not as said, or the model takes neither 3 channels nor 1.
    """
    spec = clip_spec(model_or_spec)
    _check_channels(spec)
    expected = "a uint8 tensor (..., 3, T, H, W), the training clips of a VideoDataset"
    if not isinstance(clips, torch.Tensor):
        raise TypeError(f"clips are of type {type(clips).__name__}, expected {expected}")
    if clips.dtype != torch.uint8 or clips.ndim < 4 or clips.shape[-4] != 3:
        advice = (
            "; test views and what clip_transform gives are normalised already" if clips.is_floating_point() else ""
        )
        raise ValueError(f"clips are {tuple(clips.shape)} {clips.dtype}, expected {expected}{advice}")
    return _normalise(clips.movedim(-4, -3).float(), spec).movedim(-3, -4)


def crop_views(frames: Iterable[torch.Tensor], spec: ClipSpec, pixels: Pixels | None = None) -> torch.Tensor:
    """The `spec.crops` test crops of a clip: frames, each `(H, W, 3) uint8` -> `(crops, C, T, H, W) float32`.

    The frame is scaled to cover `spec.size` (for a square: its short side becomes the crop's, the other side is
    floored), bilinearly on floats without antialiasing; the crops are spread evenly along the longer side, first to
    last. One crop is the centre.

    Args:
        frames: a `(T, H, W, 3)` tensor, or an iterable of frames: each is resized as it comes, so that long clips of
            large frames need not be in memory at once.
        spec: C is its `in_chans`, 3, or 1 for grey.
        pixels: what of each frame was picked, by `view_pixels`; None: nothing, they are whole.

    Raises:
        TypeError: a frame is no tensor.
        ValueError: there is none, or one is not as said; or the spec's `in_chans` is neither 3 nor 1.
    """
    _check_channels(spec)
    if isinstance(frames, torch.Tensor):
        _check_frames(frames)
    images = _resize_all(frames, spec.size, pixels)
    clip = _normalise(images, spec).transpose(0, 1)  # once for all crops
    height, width = spec.size
    offsets = _offsets(images.shape[-2], images.shape[-1], spec)
    return torch.stack([clip[..., top : top + height, left : left + width] for top, left in offsets])


def view_pixels(height: int, width: int, spec: ClipSpec) -> Pixels | None:
    """What `crop_views` needs of frames (height, width); None: all of it."""
    return pixels_of(height, width, *_covering(height, width, spec.size))


class Box(NamedTuple):
    """A part of a frame, in pixels of it."""

    top: float
    left: float
    height: float
    width: float


def crop_boxes(height: int, width: int, model_or_spec: Any) -> list[Box]:
    """Where the test crops of `crop_views` lie in a frame as it was decoded, (height, width) in pixels."""
    spec = clip_spec(model_or_spec)
    h, w = _covering(height, width, spec.size)
    y, x = height / h, width / w
    return [Box(top * y, left * x, spec.size[0] * y, spec.size[1] * x) for top, left in _offsets(h, w, spec)]


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


def _resize_all(frames: Iterable[torch.Tensor], size: tuple[int, int], pixels: Pixels | None) -> torch.Tensor:
    """T frames, each (H, W, C) uint8 -> (T, C, h, w) float, some at a time.

    Not one by one: where frames are decoded as they are taken, the threads that resized one would wait for the next by
    spinning, on the cores that the decoder needs. Not all at once: floats of 96 large frames are gigabytes.
    """
    resized: list[torch.Tensor] = []
    waiting: list[torch.Tensor] = []

    def resize() -> None:
        images = torch.stack(waiting).float()
        resized.append(_resize(images, size) if pixels is None else _blend(images, pixels))
        waiting.clear()

    whole = pixels is None
    for number, frame in enumerate(frames):
        _check_frames(frame, 3)
        if whole:
            if number == 0:
                pixels = pixels_of(frame.shape[0], frame.shape[1], *_covering(frame.shape[0], frame.shape[1], size))
            if pixels is not None:
                frame = frame[pixels.rows][:, pixels.columns]
        waiting.append(frame)
        if frame.numel() * len(waiting) >= _CHUNK_BYTES:
            resize()
    if waiting:
        resize()
    if not resized:
        raise ValueError("got no frames, expected at least 1")
    return torch.cat(resized) if len(resized) > 1 else resized[0]


def _blend(near: torch.Tensor, pixels: Pixels) -> torch.Tensor:
    """Picked pixels (T, 2 h, 2 w, C) float -> (T, C, h, w), as `_resize` of the whole frames up to rounding."""
    h, w = len(pixels.rows) // 2, len(pixels.columns) // 2
    sides = ((pixels.height, h), (pixels.width, w))
    y, x = (torch.from_numpy(neighbours(length, count)[1]).to(near.device) for length, count in sides)
    near = near.view(len(near), h, 2, w, 2, near.shape[-1])
    near = torch.lerp(near[:, :, :, :, 0], near[:, :, :, :, 1], x[:, None])
    return torch.lerp(near[:, :, 0], near[:, :, 1], y[:, None, None]).permute(0, 3, 1, 2)


def _resize(frames: torch.Tensor, size: tuple[int, int], short: int = 0) -> torch.Tensor:
    """(T, H, W, C) -> (T, C, h, w) that covers `size` and, if larger, has the short side. Of bytes, torch rounds."""
    h, w = _covering(frames.shape[1], frames.shape[2], size, short)
    images = frames.permute(0, 3, 1, 2)  # channels-last in memory: interpolate takes it without a copy
    if (h, w) != tuple(frames.shape[1:3]):
        images = F.interpolate(images, size=(h, w), mode="bilinear", align_corners=False)
    return images


def _covering(height: int, width: int, size: tuple[int, int], short: int = 0) -> tuple[int, int]:
    """What a frame (height, width) is scaled to, so that it covers `size` and, if larger, has the short side."""
    need_h = max(size[0], short) if height <= width else size[0]
    need_w = max(size[1], short) if width <= height else size[1]
    # One side is met exactly; the other follows the aspect ratio and is floored (never below what it must cover).
    if need_h * width >= need_w * height:
        h, w = need_h, width if need_h == height else max(need_w, math.floor(width / height * need_h))
    else:
        h, w = height if need_w == width else max(need_h, math.floor(height / width * need_w)), need_w
    return h, w


def _offsets(height: int, width: int, spec: ClipSpec) -> list[tuple[int, int]]:
    """(top, left) of each crop of a scaled frame. At most one side has slack: the other was resized to fit."""
    slack_y, slack_x = height - spec.size[0], width - spec.size[1]
    places = [(1, 2)] if spec.crops == 1 else [(i, spec.crops - 1) for i in range(spec.crops)]
    return [(math.ceil(slack_y * i / n), math.ceil(slack_x * i / n)) for i, n in places]


def _normalise(images: torch.Tensor, spec: ClipSpec) -> torch.Tensor:
    """(..., 3, H, W) float in 0..255, which it may change -> (..., C, H, W) normalised."""
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (spec.mean, spec.std))
    # Sent without waiting for the device, which is to be kept busy.
    factor, less = (values.to(images.device, non_blocking=True) for values in (1 / (255 * std), mean / std))
    images = images if spec.in_chans == 3 else rgb_to_grayscale(images)
    if spec.bgr:
        images = images.flip(-3)
    return images.mul_(factor).sub_(less)  # (x / 255 - mean) / std
