"""Clips without files: the spec and the indices. Golden indices come from the authors' preprocessing."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from timesformer_zoo import ClipSpec, clip_spec, frame_indices

GOLDEN = json.loads((Path(__file__).parents[1] / "data" / "preprocess" / "official_frame_indices.json").read_text())


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


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
