"""How pixels become a model's input: test crops and training crops, held to torchvision's functions."""

import json
import math
import pickle
from dataclasses import replace
from random import Random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from timesformer_zoo import ClipSpec, clip_transform, crop_views, normalize_clips


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, (*shape, 3), dtype=torch.uint8, generator=seeded(0))


# --- test crops


def reference(frames: torch.Tensor, resized: tuple[int, int], box: tuple[int, int, int, int]) -> torch.Tensor:
    """Normalise, resize, crop (top, left, height, width), in the official order, by torchvision."""
    images = (frames.permute(0, 3, 1, 2).float() / 255 - 0.45) / 0.225
    return tv.crop(tv.resize(images, list(resized), antialias=False), *box).transpose(0, 1)


@pytest.mark.parametrize(
    ("frame", "size", "resized", "corners"),
    [
        ((45, 80), (32, 32), (32, 56), [(0, 0), (0, 12), (0, 24)]),  # 56.9 floored
        ((80, 45), (32, 32), (56, 32), [(0, 0), (12, 0), (24, 0)]),
        ((33, 67), (32, 32), (32, 64), [(0, 0), (0, 16), (0, 32)]),
        ((20, 41), (32, 32), (32, 65), [(0, 0), (0, 17), (0, 33)]),  # enlarged; the middle of 33 is 17
        ((41, 41), (32, 32), (32, 32), [(0, 0)] * 3),
        ((32, 47), (32, 32), (32, 47), [(0, 0), (0, 8), (0, 15)]),  # not resized
        ((49, 98), (49, 49), (49, 98), [(0, 0), (0, 25), (0, 49)]),
        ((60, 80), (24, 48), (36, 48), [(0, 0), (6, 0), (12, 0)]),  # a crop wider than the frame
        ((60, 80), (48, 24), (48, 64), [(0, 0), (0, 20), (0, 40)]),
        ((1, 1), (8, 16), (16, 16), [(0, 0), (4, 0), (8, 0)]),
    ],
    ids=str,
)
def test_test_crops(
    frame: tuple[int, int], size: tuple[int, int], resized: tuple[int, int], corners: list[tuple[int, int]]
) -> None:
    frames = noise(2, *frame)
    views = crop_views(frames, ClipSpec(2, size=size))
    assert views.shape == (3, 3, 2, *size)
    for view, corner in zip(views, corners, strict=True):
        torch.testing.assert_close(view, reference(frames, resized, (*corner, *size)), rtol=0, atol=1e-5)
    torch.testing.assert_close(clip_transform(ClipSpec(2, size=size))(frames), views[1], rtol=0, atol=0)


def test_number_of_crops() -> None:
    frames = noise(1, 8, 24)
    one, two, five = (crop_views(frames, ClipSpec(1, size=8, crops=n)) for n in (1, 2, 5))
    assert torch.equal(one, five[2:3])
    assert torch.equal(two, five[[0, 4]])
    assert [bool(torch.equal(five[i], five[i + 1])) for i in range(4)] == [False] * 4


def test_frames_may_come_one_by_one() -> None:
    frames = noise(5, 30, 40)
    assert torch.equal(crop_views(iter(frames), ClipSpec(5, size=24)), crop_views(frames, ClipSpec(5, size=24)))
    with pytest.raises(ValueError, match="no frames"):
        crop_views(iter([]), ClipSpec())
    with pytest.raises(ValueError, match="no frames"):
        clip_transform(ClipSpec(), training=True)(frames[:0])


def test_mean_and_std_are_per_channel_and_bgr_swaps_first() -> None:
    frames = torch.tensor([255, 51, 0], dtype=torch.uint8).expand(1, 4, 4, 3)
    spec = {"num_frames": 1, "size": 4, "mean": (0.1, 0.2, 0.3), "std": (0.5, 0.25, 0.1)}
    rgb = clip_transform(ClipSpec(**spec))(frames)[:, 0, 0, 0]
    bgr = clip_transform(ClipSpec(**spec, bgr=True))(frames)[:, 0, 0, 0]
    torch.testing.assert_close(rgb, torch.tensor([0.9 / 0.5, 0.0, -0.3 / 0.1]))
    torch.testing.assert_close(bgr, torch.tensor([-0.1 / 0.5, 0.0, 0.7 / 0.1]))


def test_grey_is_torchvisions() -> None:
    frames, colours = noise(2, 30, 40), ClipSpec(2, size=24, mean=(0,), std=(1,))
    grey = replace(colours, in_chans=1)
    expected = tv.rgb_to_grayscale(crop_views(frames, colours).transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(crop_views(frames, grey), expected)
    for training in (False, True):
        wanted = clip_transform(colours, training, generator=seeded(1))(frames)
        got = clip_transform(grey, training, generator=seeded(1))(frames)
        torch.testing.assert_close(got, tv.rgb_to_grayscale(wanted.transpose(0, 1)).transpose(0, 1))
    assert torch.equal(crop_views(frames, replace(grey, bgr=True)), crop_views(frames, grey))


def test_grey_has_the_mean_and_std_of_the_greys() -> None:
    assert ClipSpec(in_chans=1).mean == (0.45,)
    assert ClipSpec(in_chans=1).std == (0.225,)
    assert ClipSpec(mean=(0.5,)).mean == (0.5, 0.5, 0.5)
    mean = (0.1, 0.2, 0.4)
    (grey,) = ClipSpec(in_chans=1, mean=mean).mean
    assert grey == pytest.approx(0.299 * 0.1 + 0.587 * 0.2 + 0.114 * 0.4, abs=1e-4)
    assert ClipSpec(in_chans=1, mean=mean[::-1], bgr=True).mean == (grey,)
    spec = ClipSpec(in_chans=1, mean=mean)
    assert ClipSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


@pytest.mark.parametrize("channels", [2, 4])
def test_frames_become_no_other_number_of_channels(channels: int) -> None:
    message = rf"takes {channels} channels, expected 3 \(RGB\) or 1 \(grey\)"
    with pytest.raises(ValueError, match=message):
        clip_transform(ClipSpec(in_chans=channels))
    with pytest.raises(ValueError, match=message):
        crop_views(noise(2, 30, 40), ClipSpec(2, size=24, in_chans=channels))


WRONG = {
    "float": torch.zeros(2, 8, 8, 3),
    "whole numbers": torch.zeros(2, 8, 8, 3, dtype=torch.long),
    "channels first": torch.zeros(2, 3, 8, 8, dtype=torch.uint8),
    "grey": torch.zeros(2, 8, 8, 1, dtype=torch.uint8),
    "with alpha": torch.zeros(2, 8, 8, 4, dtype=torch.uint8),
    "one frame": torch.zeros(8, 8, 3, dtype=torch.uint8),
    "a batch": torch.zeros(1, 2, 8, 8, 3, dtype=torch.uint8),
    "no rows": torch.zeros(2, 0, 8, 3, dtype=torch.uint8),
    "no columns": torch.zeros(2, 8, 0, 3, dtype=torch.uint8),
    "list": [],
    "array": np.zeros((2, 8, 8, 3), np.uint8),
    "none": None,
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
@pytest.mark.parametrize("training", [False, True])
def test_transform_refuses_other_inputs(wrong: object, training: bool) -> None:
    error = ValueError if isinstance(wrong, torch.Tensor) else TypeError
    with pytest.raises(error, match=r"expected a uint8 tensor \(T, H, W, 3\)"):
        clip_transform(ClipSpec(size=8), training)(wrong)


@pytest.mark.parametrize(
    "wrong", [frames for name, frames in WRONG.items() if name not in ("list", "none", "one frame")]
)
def test_crops_refuse_other_frames(wrong: torch.Tensor | np.ndarray) -> None:
    error = ValueError if isinstance(wrong, torch.Tensor) else TypeError
    for frames in (wrong, iter(wrong)):
        with pytest.raises(error, match=r"expected a uint8 tensor \((T, )?H, W, 3\)"):
            crop_views(frames, ClipSpec(size=8))


# --- training


def ramp(height: int, width: int) -> torch.Tensor:
    """Two equal frames whose first channel is y and whose second is x, 2 a pixel."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([2 * y, 2 * x, 0 * x], -1).to(torch.uint8).expand(2, -1, -1, -1)


PLAIN = {"num_frames": 2, "mean": (0.0, 0.0, 0.0), "std": (1 / 255,) * 3}  # pixels come out as they are


def exact(frames: torch.Tensor, spec: ClipSpec, generator: torch.Generator) -> torch.Tensor:
    """A training clip of the same draws by torchvision, whole frames in floats: (3, T, H, W), 0 to 255."""
    scale, y, x, mirror = torch.rand(4, generator=generator).tolist()
    low, high = spec.jitter_range
    short = round(low + scale * (high - low))
    (height, width), (crop_h, crop_w) = frames.shape[1:3], spec.size
    h = max(crop_h, short) if height <= width else crop_h
    w = max(crop_w, short) if width <= height else crop_w
    if h / height >= w / width:  # one side is as it must be, the other keeps the aspect ratio
        w = max(w, math.floor(width / height * h))
    else:
        h = max(h, math.floor(height / width * w))
    images = tv.resize(frames.permute(0, 3, 1, 2).float(), [h, w], antialias=False)
    images = tv.crop(images, int(y * (h - crop_h + 1)), int(x * (w - crop_w + 1)), crop_h, crop_w)
    return (tv.horizontal_flip(images) if spec.flip and mirror < 0.5 else images).transpose(0, 1)


FRAMES = {"any": (20, 130, None), "portrait": (20, 130, True), "landscape": (20, 130, False), "tiny": (1, 12, None)}


@pytest.mark.parametrize("kind", FRAMES)
def test_training_clips_are_within_a_grey_level_of_the_exact_ones(kind: str) -> None:
    smallest, largest, descending = FRAMES[kind]
    random = Random(kind)
    for seed in range(40):
        sides = [random.randint(smallest, largest) for _ in range(2)]
        height, width = sides if descending is None else sorted(sides, reverse=descending)
        size = random.randint(8, 70), random.randint(8, 70)
        low = min(size) + random.randint(0, 30)
        spec = ClipSpec(**PLAIN, size=size, jitter=(low, low + random.randint(0, 40)), flip=random.random() < 0.8)
        frames = noise(2, height, width)
        if random.random() < 0.3:
            frames = (frames > 127) * torch.tensor(255, dtype=torch.uint8)  # the sharpest edges
        clip = clip_transform(spec, training=True, generator=seeded(seed))(frames)
        torch.testing.assert_close(clip, exact(frames, spec, seeded(seed)).round(), rtol=0, atol=1.001)


@pytest.mark.parametrize("bgr", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_clips_are_normalised_where_they_are(channels: int, bgr: bool) -> None:
    spec = ClipSpec(2, size=8, in_chans=channels, mean=(0.1, 0.2, 0.4), std=(0.5, 0.25, 0.2), bgr=bgr)
    clips = noise(5, 2, 4, 8, 8).movedim(-1, 2)  # (B, V, 3, T, H, W), each another one
    assert clips.shape == (5, 2, 3, 4, 8, 8)
    before = clips.clone()
    normalised = normalize_clips(clips, spec)
    assert torch.equal(clips, before)
    assert (normalised.shape, normalised.dtype) == ((5, 2, channels, 4, 8, 8), torch.float32)
    for got, clip in zip(normalised.flatten(0, 1), clips.flatten(0, 1), strict=True):
        frames = clip.transpose(0, 1)
        images = tv.rgb_to_grayscale(frames.float()) if channels == 1 else frames.flip(1) if bgr else frames
        expected = tv.normalize(images / 255, list(spec.mean), list(spec.std)).transpose(0, 1)
        torch.testing.assert_close(got, expected)
    assert normalize_clips(clips[:0], spec).shape == (0, 2, channels, 4, 8, 8)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (torch.zeros(2, 3, 4, 8, 8), r"are \(2, 3, 4, 8, 8\) torch.float32, .*; test views .* are normalised already"),
        (torch.zeros(2, 4, 3, 8, 8, dtype=torch.uint8), r"are \(2, 4, 3, 8, 8\) torch.uint8"),
        (torch.zeros(3, 8, 8, dtype=torch.uint8), r"are \(3, 8, 8\) torch.uint8"),
        (np.zeros((3, 4, 8, 8), np.uint8), "are of type ndarray"),
    ],
)
def test_other_clips_are_not_normalised(wrong: torch.Tensor | np.ndarray, says: str) -> None:
    with pytest.raises((TypeError, ValueError), match=says) as caught:
        normalize_clips(wrong, ClipSpec(4, size=8))
    assert "expected a uint8 tensor (..., 3, T, H, W)" in str(caught.value)


def test_training_crops_reach_every_place() -> None:
    spec = ClipSpec(**PLAIN, size=(16, 20), jitter=(24, 24), flip=False)
    transform = clip_transform(spec, training=True, generator=seeded(0))
    corners = set()
    for _ in range(600):
        clip = transform(ramp(24, 27))
        assert clip.shape == (3, 2, 16, 20)
        assert clip.is_contiguous()
        top, left = (float(clip[c, 0, 0, 0]) / 2 for c in (0, 1))
        torch.testing.assert_close(clip[0, 1, :, 0], 2 * (top + torch.arange(16.0)))
        torch.testing.assert_close(clip[1, 1, 0], 2 * (left + torch.arange(20.0)))
        corners.add((round(top), round(left)))
    assert corners == {(top, left) for top in range(9) for left in range(8)}


def test_training_scale_stays_in_its_range() -> None:
    spec = ClipSpec(**PLAIN, size=32, jitter=(40, 60), flip=False)
    transform = clip_transform(spec, training=True, generator=seeded(0))
    shorts = []
    for _ in range(200):
        clip = transform(ramp(100, 120))
        shorts.append(100 * 2 * 20 / float(clip[0, 0, 25, 9] - clip[0, 0, 5, 9]))  # slope of the ramp -> scale
    assert 39.5 < min(shorts) < 42
    assert 58 < max(shorts) < 60.5


def test_training_covers_a_crop_that_the_short_side_alone_would_not() -> None:
    spec = ClipSpec(**PLAIN, size=(10, 64), jitter=(12, 12))
    assert clip_transform(spec, training=True)(ramp(30, 40)).shape == (3, 2, 10, 64)


def test_flips_whole_clips_half_of_the_time() -> None:
    flips = 0
    transform = clip_transform(ClipSpec(**PLAIN, size=16), training=True, generator=seeded(0))
    for _ in range(200):
        rises = transform(ramp(30, 30)).diff(dim=-1)[1] > 0
        assert rises.all() or not rises.any(), "all frames of a clip alike"
        flips += int(not rises.any())
    assert 70 < flips < 130
    still = clip_transform(ClipSpec(**PLAIN, size=16, flip=False), training=True, generator=seeded(0))
    assert all((still(ramp(30, 30)).diff(dim=-1)[1] > 0).all() for _ in range(20))


def test_training_follows_the_generator_or_the_global_seed() -> None:
    spec, frames = ClipSpec(2, size=16), noise(2, 40, 50)
    one, same, other = (clip_transform(spec, True, generator=seeded(s))(frames) for s in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    transform = clip_transform(spec, True)
    torch.manual_seed(3)
    first = transform(frames)
    assert not torch.equal(transform(frames), first)
    torch.manual_seed(3)
    assert torch.equal(transform(frames), first)


def test_transform_can_be_sent_to_workers() -> None:
    frames = noise(2, 20, 30)
    for training in (False, True):
        transform = clip_transform(ClipSpec(2, size=16), training)
        again = pickle.loads(pickle.dumps(transform))
        torch.manual_seed(0)
        expected = transform(frames)
        torch.manual_seed(0)
        assert torch.equal(again(frames), expected)


def test_transform_of_a_model() -> None:
    model = SimpleNamespace(num_frames=2, img_size=(16, 24), clip={"mean": [0.5] * 3})
    frames = noise(2, 20, 30)
    expected = clip_transform(ClipSpec(2, size=(16, 24), mean=(0.5,) * 3))(frames)
    assert torch.equal(clip_transform(model)(frames), expected)
