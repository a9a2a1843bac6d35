"""Camera motion as data: a virtual camera over pictures and over real video.

A clip is RGB, 8 frames of 64 x 64, and its label says what the CAMERA does. "pan right": the camera turns right, so
what is seen moves left. "tilt up": the camera looks up, so what is seen moves down. "zoom in": what is seen grows.
"roll clockwise": the camera turns clockwise about its viewing axis, so what is seen turns counterclockwise.

No single frame tells the class: every clip draws a zoom and a roll, and one of another class is frozen at a random
moment of it, so position, scale and tilt of a frame have one distribution for all classes; all else (colour, blur,
noise, things that move in front) is drawn without regard to the class, and the whole is symmetric under time reversal.

Legend: B clips, T frames, H W pixels. Coordinates are x right, y down. Clips are (B, 3, T, H, W) float32 in [0, 1].
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from textures import texture
from torch import Tensor
from torch.nn import functional as F

# Each label: which motion it is (column of a pose: x, y, log scale, angle) and its sign. "static" has none.
MOTIONS: dict[str, tuple[int, int] | None] = {
    "static": None,
    "pan left": (0, -1),
    "pan right": (0, 1),
    "tilt up": (1, -1),
    "tilt down": (1, 1),
    "zoom in": (2, -1),  # the view covers less and less
    "zoom out": (2, 1),
    "roll clockwise": (3, 1),  # y points down, so a growing angle turns the view clockwise
    "roll counterclockwise": (3, -1),
}
LABELS = tuple(MOTIONS)
FRAMES, SIZE = 8, 64
MEAN, STD = 0.45, 0.225

# Total motion over a clip, drawn log-uniformly: output pixels, log of the zoom factor, radians.
SPEED = {0: (4.0, 40.0), 1: (4.0, 40.0), 2: (math.log(1.12), math.log(2.0)), 3: (math.radians(8), math.radians(60))}
# What every clip has besides, "static" too: shake a frame (output pixels) and slow drift over the clip in each motion.
SHAKE = 0.3
DRIFT = torch.tensor([0.8, 0.8, 0.01, math.radians(0.7)])

# A clip is left out unless, in each of its frames, every mixture of the four motions that would move the pixels by 1
# (root mean square) would change the grey levels by at least this (of 1). Nothing to see, one direction only
# (stripes), rings: all fail.
MIN_RESPONSE = 0.012
# Footage is used only while its own camera rests: of the pixels with texture, this share must move by less than half a
# pixel of a picture 128 wide.
MIN_STILL = 0.6

VIDEO_SUFFIXES = {".avi", ".mp4", ".mpg", ".mpeg", ".mov", ".mkv", ".webm", ".ogv"}
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".ppm", ".webp"}
SPLITS = {"train": range(80), "val": range(80, 90), "test": range(90, 100)}


@dataclass(frozen=True)
class Source:
    """What the camera looks at: `frames` (T, 3, H, W) uint8, one for a picture; halved again and again in `levels`."""

    name: str
    levels: tuple[Tensor, ...]
    starts: tuple[tuple[int, int], ...] = ((0, 1),)  # (first frame, stride) of stretches with a resting camera

    @property
    def is_video(self) -> bool:
        return self.levels[0].shape[0] > 1

    @classmethod
    def of(cls, name: str, frames: Tensor, starts: tuple[tuple[int, int], ...] = ((0, 1),)) -> Source:
        levels = [frames]
        while min(levels[-1].shape[-2:]) >= 2 * SIZE:
            levels.append(F.avg_pool2d(levels[-1].float(), 2).round().to(torch.uint8))
        return cls(name, tuple(levels), starts)


def resting(frames: Tensor, strides: Sequence[int] = (1, 2, 3)) -> tuple[tuple[int, int], ...]:
    """Stretches of footage (T, 3, H, W) while its own camera rests (things may move): (first frame, stride) each."""
    grey = F.interpolate(frames.float().mean(1, keepdim=True), size=(96, 128), mode="area")[:, 0] / 255
    gy, gx = torch.gradient(grey, dim=(1, 2))
    slope = (gx.square() + gy.square()).sqrt()
    found = []
    for stride in strides:
        for first in range(0, len(frames) - stride * (FRAMES - 1), 2):
            chosen = grey[first : first + stride * (FRAMES - 1) + 1 : stride]
            textured = slope[first] > 0.03
            moved = (chosen[1:] - chosen[0]).abs() > 0.5 * slope[first]
            still = 1 - moved[:, textured].float().mean(1) if textured.sum() > 100 else torch.zeros(1)
            if still.min() >= MIN_STILL:
                found.append((first, stride))
    return tuple(found)


def load_sources(folder: str | Path, split: str, max_frames: int = 400) -> list[Source]:
    """Pictures and videos of `folder/split`, or of `folder` by a hash of the file names where it has no such folders.

    Raises FileNotFoundError where there is none.
    """
    import decord  # as heavy as it is optional: pictures and textures need neither
    from PIL import Image

    decord.logging.set_level(decord.logging.QUIET)  # some old videos make FFmpeg mutter, and decode all the same
    root = Path(folder)
    laid_out = (root / split).is_dir()
    paths = sorted(path for path in (root / split if laid_out else root).rglob("*") if path.is_file())
    if not laid_out:
        paths = [p for p in paths if int(hashlib.sha1(p.name.encode()).hexdigest(), 16) % 100 in SPLITS[split]]
    sources = []
    for path in paths:
        if path.suffix.lower() in VIDEO_SUFFIXES:
            reader = decord.VideoReader(str(path))
            scale = max(1.0, min(reader[0].shape[:2]) / 288)
            height, width = (round(side / scale) for side in reader[0].shape[:2])
            reader = decord.VideoReader(str(path), width=width, height=height)
            pixels = torch.from_numpy(reader.get_batch(range(min(len(reader), max_frames))).asnumpy())
            frames = pixels.permute(0, 3, 1, 2)
            if starts := resting(frames):
                sources.append(Source.of(path.name, frames.contiguous(), starts))
        elif path.suffix.lower() in IMAGE_SUFFIXES:
            with Image.open(path) as image:
                rgb = image.convert("RGB")
            rgb.thumbnail((1600, 1600))
            pixels = torch.frombuffer(bytearray(rgb.tobytes()), dtype=torch.uint8).view(rgb.height, rgb.width, 3)
            sources.append(Source.of(path.name, pixels.permute(2, 0, 1)[None].contiguous()))
    if not sources:
        raise FileNotFoundError(f"no {split} picture or video in {root}; run fetch_sources.py {root}")
    return sources


def textures(n: int, seed: int, size: int = 256) -> list[Source]:
    """Procedural pictures, as sources."""
    generator = torch.Generator().manual_seed(seed)
    return [Source.of(f"texture {seed}.{i}", (texture(generator, size)[None] * 255).to(torch.uint8)) for i in range(n)]


def poses(labels: Tensor, generator: torch.Generator, slowest: float = 0.0) -> Tensor:
    """Camera poses (B, T, 4): x and y in output pixels, log scale, angle; `slowest` (0 to 1) lifts the least speed."""
    b = len(labels)
    time = torch.linspace(0, 1, FRAMES)

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    # Progress 0..1 of each motion: between steady and eased, sooner or later, and as often the one as its reverse.
    ease, late = rand(b, 1, 4), (2 * rand(b, 1, 4) - 1).mul(0.35).exp()
    t = time[None, :, None].pow(late)
    progress = (1 - ease) * t + ease * t * t * (3 - 2 * t)
    progress = torch.where(rand(b, 1, 4) < 0.5, progress, (1 - progress).flip(1))

    low = torch.tensor([SPEED[i][0] for i in range(4)])
    high = torch.tensor([SPEED[i][1] for i in range(4)])
    low = low * (high / low).pow(0.6 * slowest)
    amount = low * (high / low).pow(rand(b, 4))
    sign = torch.where(rand(b, 4) < 0.5, -1.0, 1.0)
    active = torch.zeros(b, 4, dtype=torch.bool)
    for row, label in enumerate(labels.tolist()):
        if motion := MOTIONS[LABELS[label]]:
            active[row, motion[0]] = True
            sign[row, motion[0]] = motion[1]

    moment = torch.randint(FRAMES, (b, 1, 4), generator=generator)
    frozen = progress.gather(1, moment).expand_as(progress)
    path = torch.where(active[:, None], progress, frozen) - rand(b, 1, 4)
    path[..., :2] = torch.where(active[:, None, :2], progress[..., :2] - 0.5, torch.zeros(()))
    pose = path * (amount * sign)[:, None]
    pose = pose + torch.where(active, 0.0, 1.0)[:, None] * (2 * rand(b, 1, 4) - 1) * DRIFT * (time[None, :, None] - 0.5)
    pose[..., :2] += (2 * rand(b, FRAMES, 2) - 1) * SHAKE * rand(b, 1, 1)
    return pose


def look(source: Source, pose: Tensor, u: Sequence[float], turn: bool) -> Tensor | None:
    """What the camera sees of a source along a path (T, 4): (3, T, H, W) in [0, 1]; None where the view does not fit.

    `u` are seven numbers in [0, 1) that choose size, place and stretch; with `turn`, also mirroring and quarter turns.
    """
    scale, angle = pose[:, 2].exp(), pose[:, 3]
    axis = torch.arange(SIZE) - (SIZE - 1) / 2
    vx, vy = axis + pose[:, :1], axis + pose[:, 1:2]  # (T, SIZE)
    c, s = (scale * angle.cos())[:, None, None], (scale * angle.sin())[:, None, None]
    x, y = c * vx[:, None] - s * vy[:, :, None], s * vx[:, None] + c * vy[:, :, None]  # (T, SIZE, SIZE)
    height, width = source.levels[0].shape[-2:]
    if swap := turn and u[3] < 0.5:
        height, width = width, height
    (x0, x1), (y0, y1) = ((float(a.min()), float(a.max())) for a in (x, y))
    largest = min((width - 1) / (x1 - x0), (height - 1) / (y1 - y0), 4.0)  # source pixels to an output pixel
    if largest < 0.5:
        return None
    smallest = min(max(0.7, largest / 4), largest)
    zoom = smallest * (largest / smallest) ** u[0]
    x = x * zoom + (-x0 * zoom + u[1] * max(width - 1 - (x1 - x0) * zoom, 0))
    y = y * zoom + (-y0 * zoom + u[2] * max(height - 1 - (y1 - y0) * zoom, 0))
    if turn and u[4] < 0.5:
        x = width - 1 - x
    if turn and u[5] < 0.5:
        y = height - 1 - y
    if swap:
        x, y, height, width = y, x, width, height
    # The level where an output pixel covers 0.6 to 1.2 pixels at the neutral pose.
    level = min(max(math.ceil(math.log2(zoom / 1.2)), 0), len(source.levels) - 1)
    frames = source.levels[level]
    x, y = (x + 0.5) / 2**level - 0.5, (y + 0.5) / 2**level - 0.5
    left, top = max(int(x.min()), 0), max(int(y.min()), 0)
    window = frames[..., top : int(y.max()) + 2, left : int(x.max()) + 2]
    if source.is_video:
        first, stride = source.starts[int(u[6] * len(source.starts))]
        window = window[first : first + stride * (FRAMES - 1) + 1 : stride]
    h, w = window.shape[-2:]
    grid = torch.stack(((x - left) * (2 / (w - 1)) - 1, (y - top) * (2 / (h - 1)) - 1), -1)
    if not source.is_video:
        grid = grid.view(1, FRAMES * SIZE, SIZE, 2)
    seen = F.grid_sample(window.float(), grid, padding_mode="border", align_corners=True) / 255
    return seen.permute(1, 0, 2, 3) if source.is_video else seen.view(3, FRAMES, SIZE, SIZE)


def response(clip: Tensor) -> float:
    """The least change of a clip (3, T, H, W) for 1 pixel of motion, over mixtures of motions and frames.

    Change and pixels are root mean squares, of grey levels in [0, 1] and of the displacement over the view.
    The criterion of Shi and Tomasi ("Good features to track", 1994) for pan, tilt, zoom and roll instead of x and y.
    """
    grey = clip.mean(0)
    gx = (grey[:, 1:-1, 2:] - grey[:, 1:-1, :-2]) / 2
    gy = (grey[:, 2:, 1:-1] - grey[:, :-2, 1:-1]) / 2
    axis = torch.arange(gx.shape[-1]) - (gx.shape[-1] - 1) / 2
    axis = axis / (2 * axis.square().mean()).sqrt()  # a unit of zoom or roll moves pixels by 1, root mean square
    x, y = axis[None], axis[:, None]
    change = torch.stack((gx, gy, x * gx + y * gy, x * gy - y * gx), 1).flatten(2)
    gram = change @ change.mT / change.shape[-1]
    return float(torch.linalg.eigvalsh(gram)[:, 0].min().clamp(min=0).sqrt())


def recolour(clip: Tensor, generator: torch.Generator, strength: float) -> Tensor:
    """Gamma, saturation, contrast, tint, blur or coarse pixels: the same in all frames, but for a slight flicker."""
    u = torch.rand(16, generator=generator).tolist()
    v = [2 * a - 1 for a in u]
    saturation = 0.0 if u[0] < 0.2 * strength else 1 + 0.6 * strength * v[1]
    mix = torch.full((3, 3), (1 - saturation) / 3) + saturation * torch.eye(3)
    contrast = 1 + strength * (torch.tensor(v[2:5]) * 0.15 + v[5] * 0.35)
    offset = 0.5 - 0.5 * contrast + 0.12 * strength * v[6]
    clip = clip.clamp(min=1e-4).pow(math.exp(0.5 * strength * v[7]))
    clip = ((contrast[:, None] * mix) @ clip.reshape(3, -1) + offset[:, None]).view_as(clip)
    clip = (clip * (1 + 0.04 * strength * (torch.rand(FRAMES, 1, 1, generator=generator) - 0.5))).clamp(0, 1)
    if u[8] < 0.25 * strength:
        x = F.pad(clip, (1, 1, 1, 1), mode="replicate")
        x = x[..., :-2, :] + 2 * x[..., 1:-1, :] + x[..., 2:, :]
        clip = (x[..., :-2] + 2 * x[..., 1:-1] + x[..., 2:]) / 16
    elif u[8] > 1 - 0.1 * strength:
        clip = F.interpolate((F.avg_pool2d(clip, 2) * 24).round() / 24, scale_factor=2.0, mode="nearest")
    return clip


def obstruct(clip: Tensor, other: Tensor, generator: torch.Generator) -> Tensor:
    """A disc or box before a clip, moving or fixed to the lens, through which another clip is seen."""
    u = torch.rand(8, generator=generator).tolist()
    time = torch.linspace(-0.5, 0.5, FRAMES)[:, None, None] * (60 if u[7] < 0.7 else 0)
    axis = torch.arange(SIZE, dtype=torch.float32)
    dx = (axis - SIZE * u[0] - (u[2] - 0.5) * time) / (4 + 9 * u[4])
    dy = (axis[:, None] - SIZE * u[1] - (u[3] - 0.5) * time) / (4 + 9 * u[5])
    inside = dx.square() + dy.square() < 1 if u[6] < 0.5 else torch.maximum(dx.abs(), dy.abs()) < 1
    return torch.where(inside, other, clip)


@dataclass
class CameraMotion(torch.utils.data.Dataset[tuple[Tensor, Tensor, int]]):
    """Item k is batch k: (normalised clips (B, 3, T, H, W), labels (B,), number of candidates left out).

    A batch depends on `seed` and k alone, so a resumed run sees what an uninterrupted one would have seen. Each class
    has an equal share of a batch to within one clip, and one that is left out is drawn anew with its label and path.
    """

    sources: Sequence[Source]
    batch_size: int = 64
    steps: int = 1000
    seed: int = 0
    augment: bool = True
    procedural: float = 0.0  # share of clips over procedural textures
    footage: float = 0.25  # share of the others over video, where there is any
    warmup: int = 0  # batches until speeds and disturbances reach their full range
    fresh: int = 100  # batches that share one set of textures
    variety: int = 96  # textures in a set
    _textures: tuple[int, list[Source]] = field(default=(-1, []), repr=False)

    def __len__(self) -> int:
        return self.steps

    def _pools(self, step: int) -> list[tuple[float, Sequence[Source]]]:
        """(share, sources) of each kind."""
        if self.procedural and self._textures[0] != step // self.fresh:
            block = step // self.fresh
            self._textures = (block, textures(self.variety, self.seed * 100_003 + block))
        videos, pictures = [s for s in self.sources if s.is_video], [s for s in self.sources if not s.is_video]
        footage = self.footage if videos and pictures else float(bool(videos))
        real = 1 - self.procedural
        pools = [(self.procedural, self._textures[1]), (real * footage, videos), (real * (1 - footage), pictures)]
        return [(share, pool) for share, pool in pools if share and pool]

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor, int]:
        if not 0 <= step < self.steps:
            raise IndexError(f"batch {step} of {self.steps}")
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        strength = min(1.0, step / self.warmup) if self.warmup else 1.0
        pools = self._pools(step)
        shares = torch.tensor([share for share, _ in pools])
        order = torch.randperm(self.batch_size, generator=generator)
        labels = (order + torch.randint(len(LABELS), (), generator=generator)) % len(LABELS)
        clips = torch.empty(self.batch_size, 3, FRAMES, SIZE, SIZE)
        left_out = 0
        for slot, path in enumerate(poses(labels, generator, slowest=1 - strength)):
            while True:
                pool = pools[int(torch.multinomial(shares, 1, generator=generator))][1]
                source = pool[int(torch.randint(len(pool), (), generator=generator))]
                clip = look(source, path, torch.rand(7, generator=generator).tolist(), turn=self.augment)
                if clip is None:
                    continue
                if self.augment:
                    clip = recolour(clip, generator, strength)
                if response(clip) >= MIN_RESPONSE:
                    break
                left_out += 1
            clips[slot] = clip
        # Noise is drawn once for eight clips: it is the dearest draw of all, and a model can't tell.
        noise = torch.randn(8, 3, FRAMES, SIZE, SIZE, generator=generator)
        for slot, (u, level) in enumerate(torch.rand(self.batch_size, 2, generator=generator).tolist()):
            if self.augment and u < 0.3 * strength:
                clips[slot] = obstruct(clips[slot], clips[slot - 1], generator)
            clips[slot] += noise[slot % 8] * (level * (0.03 * strength if self.augment else 0.01))
        return clips.clamp_(0, 1).sub_(MEAN).div_(STD), labels, left_out
