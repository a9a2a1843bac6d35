"""From a video file to clips and test views. The golden ones come from the authors' preprocessing of real videos."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from small_models import tiny
from videos import numbers_of, real_video, write_video

from timesformer_zoo import (
    ClipSpec,
    Sample,
    Video,
    VideoDataset,
    VideoList,
    clip_transform,
    crop_views,
    frame_indices,
    load_views,
    predict,
    predict_windows,
    read_clip,
)
from timesformer_zoo.video.decoders import PyAVDecoder

GOLDEN = Path(__file__).parents[1] / "data" / "preprocess" / "official_test_views.safetensors"


@pytest.mark.parametrize(
    ("name", "spec", "step"),
    [
        ("bikes.T8x32.224", ClipSpec(), 7),
        ("bigbuckbunny.T8x32.224", ClipSpec(), 7),
        ("bikes.T16x16.448", ClipSpec(num_frames=16, stride=16, size=448), 16),
    ],
)
def test_views_equal_the_official_ones(name: str, spec: ClipSpec, step: int) -> None:
    views = load_views(real_video(name.partition(".")[0] + ".mp4"), spec)
    with safe_open(GOLDEN, "pt") as golden:
        expected = golden.get_tensor(name)
    assert views.shape == (3, 3, spec.num_frames, *spec.size)
    assert views.is_contiguous()
    torch.testing.assert_close(views[..., ::step, ::step], expected, rtol=0, atol=1e-4)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The frames that a decoder is asked for, as a test goes."""
    asked: list[int] = []
    stream = PyAVDecoder.stream

    def spy(decoder: PyAVDecoder, places: Sequence[int]) -> object:
        asked.extend(places)
        return stream(decoder, places)

    monkeypatch.setattr(PyAVDecoder, "stream", spy)
    return asked


def test_all_views_decode_the_needed_frames_once(video: Path, decoded: list[int]) -> None:
    spec = ClipSpec(num_frames=4, stride=4, fps=None, size=32)
    views = load_views(video, spec, clips=3, crops=2)
    clips = [frame_indices(spec, 60, 25.0, clip=i, num_clips=3) for i in range(3)]
    assert decoded == sorted(set().union(*clips))
    assert views.shape == (6, 3, 4, 32, 32)
    file, two = Video(video), ClipSpec(num_frames=4, size=32, crops=2)
    torch.testing.assert_close(views, torch.cat([crop_views(file.frames(clip), two) for clip in clips]))


def test_whoever_asks_gets_the_same_views(video: Path) -> None:
    """`load_views`, `predict` and a data set of whole videos; windows of a video and a data set of its parts."""
    model = tiny(clip={"stride": 5, "fps": None, "clips": 1, "crops": 2})  # 4 frames of 20: three windows in 60
    seen: list[torch.Tensor] = []
    model.register_forward_pre_hook(lambda module, args: seen.append(args[0]))

    def dataset(*samples: Sample) -> VideoDataset:
        return VideoDataset(VideoList("mine", "test", None, tuple("abcde"), samples), model)

    views = load_views(video, model)
    predict(model, video)
    assert torch.equal(seen.pop(), views)
    assert torch.equal(dataset(Sample(str(video), 0))[0].clips, views)

    windows = list(predict_windows(model, video, batch_size=2))
    parts = dataset(*(Sample(str(video), 0, window.start, window.end) for window in windows))
    assert len(parts) == len(seen) == 3
    for i, window in enumerate(seen):
        assert torch.equal(parts[i].clips, window)
    assert torch.equal(seen[0], views)
    assert not torch.equal(seen[1], views)


def test_views_default_to_the_spec(video: Path) -> None:
    assert len(load_views(video, ClipSpec(size=32, clips=2, crops=2))) == 4
    for wrong in ({"clips": 0}, {"crops": 0}):
        with pytest.raises(ValueError, match="a whole number from 1 up"):
            load_views(video, ClipSpec(size=32), **wrong)


def test_read_clip(video: Path) -> None:
    spec = ClipSpec(num_frames=4, stride=2, fps=25, size=32)
    assert numbers_of(read_clip(video, spec)) == [0, 2, 4, 7]
    assert numbers_of(read_clip(str(video), spec, clip=1, num_clips=2)) == [26, 28, 30, 33]
    drawn = [
        numbers_of(read_clip(video, spec, training=True, generator=torch.Generator().manual_seed(seed)))
        for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    assert clip_transform(spec)(read_clip(video, spec)).shape == (3, 4, 32, 32)


@pytest.mark.parametrize("frames", [1, 3])
def test_short_videos_repeat_their_last_frame(frames: int, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames)
    spec = ClipSpec(stride=1, fps=25, size=32)
    assert numbers_of(read_clip(path, spec)) == [*range(frames), *[frames - 1] * (8 - frames)]
    assert load_views(path, spec).shape == (3, 3, 8, 32, 32)
    assert load_views(path, ClipSpec(sampling="uniform", size=32)).shape == (3, 3, 8, 32, 32)
