"""Clips without files: indices, crops, training. Golden indices come from the authors' preprocessing."""

import json
import math
import pickle
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from timesformer_zoo import ClipSpec, clip_spec, clip_transform, crop_views, frame_indices

GOLDEN = json.loads((Path(__file__).parents[1] / "data" / "preprocess" / "official_frame_indices.json").read_text())


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, (*shape, 3), dtype=torch.uint8, generator=seeded(0))


# --- the spec


def test_spec_survives_json() -> None:
    spec = ClipSpec(num_frames=16, fps=None, sampling="uniform", size=(96, 128), jitter=(100, 120), labels="ucf101")
    assert ClipSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    assert ClipSpec.from_dict({"size": 96, "mean": [0.5, 0.5, 0.5]}) == ClipSpec(size=(96, 96), mean=(0.5, 0.5, 0.5))
    assert hash(ClipSpec.from_dict({"size": [96, 96]})) == hash(ClipSpec(size=96))


@pytest.mark.parametrize(
    ("stride", "said"), [(1, "every frame"), (2, "every 2nd frame"), (3, "every 3rd frame"), (4, "every 4th frame"),
                         (12, "every 12th frame"), (32, "every 32nd frame"), (121, "every 121st frame")]
)  # fmt: skip
def test_sampling_in_words(stride: int, said: str) -> None:
    assert ClipSpec(stride=stride).sampling_in_words == said
    assert ClipSpec(stride=stride, sampling="uniform").sampling_in_words == "over the whole video"


def test_spec_refuses_unknown_fields() -> None:
    with pytest.raises(ValueError, match="no field 'frames', 'rate'; it has num_frames, stride") as caught:
        ClipSpec.from_dict({"frames": 8, "rate": 32, "stride": 4})
    assert "labels" in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_frames": 0},
        {"num_frames": 8.0},
        {"stride": -1},
        {"clips": 0},
        {"crops": True},
        {"fps": -1.0},
        {"fps": math.nan},
        {"sampling": "sparse"},
        {"fuse": "mean"},
        {"size": 0},
        {"size": (224,)},
        {"size": (224, 224.0)},
        {"mean": (0.5, 0.4)},
        {"std": (0.5, 0.5, 0.5, 0.5)},
        {"in_chans": 0},
        {"std": (0.5, 0.5, 0.0)},
        {"jitter": (320, 256)},
        {"jitter": (200, 256)},
        {"jitter": (256,)},
    ],
    ids=str,
)
def test_spec_refuses_nonsense(wrong: dict[str, object]) -> None:
    (name,) = wrong
    with pytest.raises(ValueError, match=rf"ClipSpec\.{name} is .*, expected "):
        ClipSpec.from_dict(wrong)


def test_jitter_follows_the_size_unless_given() -> None:
    assert ClipSpec().jitter_range == (256, 320)  # the paper's, for 224
    assert ClipSpec(size=112).jitter_range == (128, 160)
    assert ClipSpec(size=448, jitter=(448, 512)).jitter_range == (448, 512)


def test_clip_spec_of_a_model() -> None:
    model = SimpleNamespace(num_frames=16, img_size=(96, 128), clip=None, pretrained_cfg=None)
    assert clip_spec(model) == ClipSpec(num_frames=16, size=(96, 128))
    model.pretrained_cfg = SimpleNamespace(mean=(0.5, 0.5, 0.5), std=None)
    assert clip_spec(model) == ClipSpec(num_frames=16, size=(96, 128), mean=(0.5, 0.5, 0.5))
    model.pretrained_cfg = {"mean": (0.4, 0.4, 0.4), "std": (0.2, 0.2, 0.2)}
    model.clip = {"sampling": "uniform", "mean": [0.1, 0.2, 0.3]}  # the last word
    expected = ClipSpec(16, sampling="uniform", size=(96, 128), mean=(0.1, 0.2, 0.3), std=(0.2, 0.2, 0.2))
    assert clip_spec(model) == expected
    assert clip_spec(expected) is expected


def test_clip_spec_of_something_else() -> None:
    with pytest.raises(TypeError, match="got Linear"):
        clip_spec(torch.nn.Linear(1, 1))
    with pytest.raises(ValueError, match="no field 'frames'"):
        clip_spec(SimpleNamespace(num_frames=8, img_size=(64, 64), clip={"frames": 8}))


# --- indices


@pytest.mark.parametrize(
    "case",
    GOLDEN,
    ids=lambda c: f"{c['video']}-{c['num_frames']}x{c['sampling_rate']}-{c['clip_idx']}of{c['num_clips']}",
)
def test_dense_indices_equal_the_official_ones(case: dict) -> None:
    spec = ClipSpec(num_frames=case["num_frames"], stride=case["sampling_rate"], fps=case["target_fps"])
    got = frame_indices(spec, case["total_frames"], case["fps"], clip=case["clip_idx"], num_clips=case["num_clips"])
    # A list a slot: the frames that look the same in the video.
    assert len(got) == len(case["frame_candidates"])
    assert all(index in candidates for index, candidates in zip(got, case["frame_candidates"], strict=True))


@pytest.mark.parametrize("fps", [None, 0, 0.0, math.nan, math.inf])
def test_an_unknown_frame_rate_is_the_specs(fps: float | None) -> None:
    spec = ClipSpec(num_frames=4, stride=4, fps=30)
    assert frame_indices(spec, 100, fps) == frame_indices(spec, 100, 30) == [0, 5, 10, 15]
    assert frame_indices(spec, 100, 60) == [0, 10, 20, 31]


@pytest.mark.parametrize("own", [None, 0])
def test_a_spec_without_a_frame_rate_takes_the_videos(own: float | None) -> None:
    spec = ClipSpec(num_frames=4, stride=4, fps=own)
    assert frame_indices(spec, 100, 60) == frame_indices(spec, 100, 7) == [0, 5, 10, 15]


@pytest.mark.parametrize("total", [1, 2, 5])
@pytest.mark.parametrize("training", [False, True])
def test_short_videos_repeat_their_last_frame(total: int, training: bool) -> None:
    spec = ClipSpec(num_frames=8, stride=1, fps=None)
    assert frame_indices(spec, total, 25.0, training=training) == [*range(total), *[total - 1] * (8 - total)]


def test_uniform_training_frames_of_a_short_video() -> None:
    spec, generator = ClipSpec(4, sampling="uniform"), seeded(0)
    drawn = {tuple(frame_indices(spec, 3, 25.0, training=True, generator=generator)) for _ in range(100)}
    # Edges 0, 0.5, 1, 1.5, 2, halves to even: 0, 0, 1, 2, 2.
    assert drawn == {(0, second, third, 2) for second in (0, 1) for third in (1, 2)}


@pytest.mark.parametrize(
    ("total", "num_frames", "expected"),
    [
        (17, 8, [1, 3, 5, 7, 9, 11, 13, 15]),
        (10, 4, [1, 3, 5, 8]),  # edges 0, 2.25, 4.5, 6.75, 9 -> 0, 2, 4, 7, 9 (halves to even)
        (3, 8, [0, 0, 0, 1, 1, 1, 2, 2]),
        (1, 3, [0, 0, 0]),
    ],
)
def test_uniform_takes_the_middle_of_each_segment(total: int, num_frames: int, expected: list[int]) -> None:
    assert frame_indices(ClipSpec(num_frames, sampling="uniform"), total, None) == expected


def test_uniform_clips_differ_within_the_segments() -> None:
    spec = ClipSpec(2, sampling="uniform")
    assert [frame_indices(spec, 21, None, clip=i, num_clips=2) for i in range(2)] == [[2, 12], [7, 17]]


def test_training_indices_cover_the_video() -> None:
    generator = seeded(0)
    dense, uniform = ClipSpec(4, stride=2, fps=None), ClipSpec(4, sampling="uniform")
    starts = set()
    for _ in range(300):
        got = frame_indices(dense, 20, 25.0, training=True, generator=generator)
        starts.add(got[0])
        assert [i - got[0] for i in got] == [0, 2, 4, 7]
    assert starts >= set(range(1, 13))
    assert max(starts) == 12
    drawn = torch.tensor([frame_indices(uniform, 21, None, training=True, generator=generator) for _ in range(300)])
    assert drawn.min(0).values.tolist() == [0, 5, 10, 15]
    assert drawn.max(0).values.tolist() == [5, 10, 15, 20]


@pytest.mark.parametrize("sampling", ["dense", "uniform"])
def test_training_indices_follow_the_generator(sampling: str) -> None:
    spec = ClipSpec(sampling=sampling)
    one, same, other = (frame_indices(spec, 5000, 25.0, training=True, generator=seeded(s)) for s in (1, 1, 2))
    assert one == same != other


def test_indices_of_clips_that_do_not_exist() -> None:
    with pytest.raises(ValueError, match="at least 1 frame, got 0"):
        frame_indices(ClipSpec(), 0, 25.0)
    with pytest.raises(ValueError, match="clip is 3, expected 0 to 2"):
        frame_indices(ClipSpec(), 10, 25.0, clip=3, num_clips=3)


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
