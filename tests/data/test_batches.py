"""Batches of videos: what is in them follows from seed, epoch and sample alone."""

import traceback
from itertools import chain

import pytest
import torch
from footage import video_list
from PIL import Image
from torchvision.transforms import v2
from videos import number_of, picture, real_video, write_video

from timesformer_zoo import (
    ClipSpec,
    MissingVideosError,
    Sample,
    VideoList,
    VideoReadError,
    clip_transform,
    load_views,
    read_clip,
)
from timesformer_zoo.data.batches import VideoDataset, make_loader
from timesformer_zoo.data.order import Draw, StepSampler, seed_of, shares

SPEC = ClipSpec(num_frames=4, stride=2, fps=None, size=(32, 32), crops=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("videos")
    for i in range(5):
        write_video(path / f"{i}.mp4", frames=20 + i)
    return path


@pytest.fixture
def videos(folder):
    return video_list([folder / f"{i}.mp4" for i in range(5)], [0, 1, 2, 0, 1])


def numbers(clips: torch.Tensor) -> list[int]:
    """Frame numbers of one view (C, T, H, W) of a numbered video that was neither mirrored nor cropped at the side."""
    frames = ((clips * 0.225 + 0.45) * 255).permute(1, 2, 3, 0)
    return [number_of(frame) for frame in frames]


# ---- items ----


def test_test_views_are_those_of_load_views():
    path = real_video("bikes.mp4")
    spec = ClipSpec(num_frames=4, stride=8, size=(32, 32), crops=3, clips=2)
    item = VideoDataset(video_list([path], [0]), spec)[0]
    assert torch.equal(item.clips, load_views(path, spec))
    assert item.clips.shape == (6, 3, 4, 32, 32)


def test_clip_in_the_middle(folder, videos):
    # 20 frames, a window of 8: a slack of 12, its middle starts at 6. linspace(0, 7, 4) is 0, 2, 4, 7.
    wide = ClipSpec(num_frames=4, stride=2, fps=None, size=(64, 96), crops=1)
    start, middle = (VideoDataset(videos, wide, where=where)[0].clips[0] for where in ("start", "middle"))
    assert numbers(start) == [0, 2, 4, 7]
    assert numbers(middle) == [6, 8, 10, 13]


def test_several_clips_in_the_middle_of_equal_parts(videos):
    wide = ClipSpec(num_frames=2, stride=2, fps=None, size=(64, 96), crops=1, clips=2)
    clips = VideoDataset(videos, wide, where="middle")[0].clips
    assert [numbers(clip)[0] for clip in clips] == [4, 12]  # of 16 frames of slack


def test_parts_of_a_video(folder):
    path = str(folder / "0.mp4")  # 20 frames at 25 a second
    wide = ClipSpec(num_frames=2, stride=2, fps=None, size=(64, 96), crops=1)
    samples = tuple(Sample(path, 0, start, end) for start, end in [(0.4, None), (0.4, 0.48), (None, 0.2), (0.6, 9.0)])
    dataset = VideoDataset(VideoList("t", "train", None, ("a",), samples), wide)
    assert [numbers(dataset[i].clips[0]) for i in range(4)] == [[10, 13], [10, 11], [0, 3], [15, 18]]
    drawn = VideoDataset(
        dataset.videos, ClipSpec(**{**wide.to_dict(), "flip": False, "jitter": [64, 64]}), training=True
    )
    clips = [drawn[Draw(1, epoch)].clips[0] for epoch in range(5)]
    assert {number_of(clip[:, 0].permute(1, 2, 0)) for clip in clips} == {10}


def test_a_part_after_the_end_is_an_error(folder):
    sample = Sample(str(folder / "0.mp4"), 0, 2.0, 3.0)
    with pytest.raises(VideoReadError, match=r"nothing from 2 to 3 s; the video has 0.80 s"):
        VideoDataset(VideoList("t", "train", None, ("a",), (sample,)), SPEC)[0]


def test_frame_folders(tmp_path):
    for number in range(12):
        Image.fromarray(picture(number, 64, 96)).save(tmp_path / f"frame {number}.png")
    wide = ClipSpec(num_frames=4, stride=2, size=(64, 96), crops=1)
    assert numbers(VideoDataset(video_list([tmp_path], [0]), wide)[0].clips[0]) == [0, 2, 4, 7]


def test_a_training_item_is_read_cropped_and_rounded_as_the_public_functions_do():
    path, spec = real_video("bikes.mp4"), ClipSpec(num_frames=4, stride=8, size=(32, 40), mean=(0,), std=(1 / 255,))
    item = VideoDataset(video_list([path], [0]), spec, training=True, seed=3)[Draw(0, 5)]
    with torch.random.fork_rng():
        torch.manual_seed(seed_of(seed_of(3, 5, 0), 0))
        clip = clip_transform(spec, training=True)(read_clip(path, spec, training=True))
    torch.testing.assert_close(item.clips[0].float(), clip)


def test_a_video_shorter_than_a_clip_repeats_its_last_frame(tmp_path):
    for number in range(2):
        Image.fromarray(picture(number, 64, 96)).save(tmp_path / f"{number}.png")
    wide = ClipSpec(num_frames=4, stride=2, size=(64, 96), jitter=(64, 64), flip=False)
    clip = VideoDataset(video_list([tmp_path], [0]), wide, training=True)[Draw(0, 0)].clips[0]
    assert [number_of(frame) for frame in clip.permute(1, 2, 3, 0)] == [0, 1, 1, 1]


# ---- repeatable ----


def training(videos, **options):
    return VideoDataset(videos, SPEC, training=True, **options)


def test_a_draw_follows_from_seed_epoch_and_sample(videos):
    first = training(videos)[Draw(1, 0)].clips
    torch.manual_seed(123)
    state = torch.get_rng_state()
    assert torch.equal(training(videos)[Draw(1, 0)].clips, first)
    assert torch.equal(torch.get_rng_state(), state)  # nobody else's random numbers change
    for other in (training(videos)[Draw(1, 1)], training(videos)[Draw(3, 0)], training(videos, seed=1)[Draw(1, 0)]):
        assert not torch.equal(other.clips, first)


def test_repeated_augmentation(videos):
    clips = training(videos, repeats=3)[Draw(0, 0)].clips
    assert (clips.shape, clips.dtype) == ((3, 3, 4, 32, 32), torch.uint8)
    assert clips.untyped_storage().nbytes() == clips.numel()  # an item holds its clips, not the frames they are of
    assert not torch.equal(clips[0], clips[1])
    assert torch.equal(clips[:1], training(videos)[Draw(0, 0)].clips)  # the others add to the first


def test_augmentation_treats_all_frames_alike(tmp_path):
    for i in range(20):
        Image.fromarray(picture(77, 64, 96)).save(tmp_path / f"{i}.png")
    dataset = training(video_list([tmp_path], [0]), augment=v2.RandAugment(2, 15))
    plain = training(video_list([tmp_path], [0]))
    changed = 0
    for epoch in range(8):
        clip = dataset[Draw(0, epoch)].clips[0]
        assert torch.equal(clip, clip[:, :1].expand_as(clip))
        changed += not torch.equal(clip, plain[Draw(0, epoch)].clips[0])
    assert changed >= 5


def batches(videos, workers, **options):
    sampler = StepSampler(len(videos.samples), 2, stop=6, **options)
    return list(make_loader(training(videos, repeats=2), sampler, workers=workers))


def test_any_number_of_workers_gives_the_same(videos):
    alone, workers = batches(videos, 0), batches(videos, 2)
    assert len(alone) == len(workers) == 6
    for a, b in zip(alone, workers, strict=True):
        assert a.clips.dtype == b.clips.dtype == torch.uint8
        assert torch.equal(a.clips, b.clips)
        assert torch.equal(a.targets, b.targets)


def test_resumes_in_the_middle_of_an_epoch(videos):
    whole, rest = batches(videos, 0), batches(videos, 0, start=4)
    for a, b in zip(whole[4:], rest, strict=True):
        assert torch.equal(a.clips, b.clips)


def test_plain_index_draws_anew_each_time(videos):
    dataset = training(videos)
    torch.manual_seed(0)
    first, second = dataset[0].clips, dataset[0].clips
    torch.manual_seed(0)
    assert torch.equal(dataset[0].clips, first)
    assert not torch.equal(first, second)


# ---- samplers ----


def test_an_epoch_has_each_sample_once():
    steps = list(StepSampler(10, 4, stop=6))
    assert [len(step) for step in steps] == [4, 4, 2, 4, 4, 2]
    for epoch in range(2):
        draws = list(chain(*steps[3 * epoch : 3 * epoch + 3]))
        assert sorted(draw.sample for draw in draws) == list(range(10))
        assert {draw.epoch for draw in draws} == {epoch}
    assert [d.sample for d in chain(*steps[:3])] != [d.sample for d in chain(*steps[3:])]


@pytest.mark.parametrize(("world", "accumulation"), [(2, 1), (1, 3), (3, 2), (7, 2)])
def test_a_step_is_the_same_however_it_is_dealt_out(world, accumulation):
    whole = [set(step) for step in StepSampler(10, 4, stop=5)]
    ranks = [
        list(StepSampler(10, 4, stop=5, rank=rank, world=world, accumulation=accumulation)) for rank in range(world)
    ]
    assert {len(rank) for rank in ranks} == {5 * accumulation}
    for step, expected in enumerate(whole):
        dealt = [d for rank in ranks for part in rank[step * accumulation : (step + 1) * accumulation] for d in part]
        assert len(dealt) == len(expected)
        assert set(dealt) == expected


@pytest.mark.parametrize("world", [1, 2, 3])
def test_shares_cover_all_in_as_many_batches(world):
    parts = [shares(10, 2, rank, world) for rank in range(world)]
    assert len({len(part) for part in parts}) == 1
    assert set(chain(*chain(*parts))) == set(range(10))
    assert sum(len(batch) for part in parts for batch in part) - 10 < world


def test_sampler_refuses_nonsense():
    with pytest.raises(ValueError, match="batch_size 0"):
        StepSampler(10, 0, stop=1)


# ---- what cannot be read ----


@pytest.fixture
def damaged(folder, tmp_path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "cut.mp4").write_bytes((folder / "1.mp4").read_bytes()[:2000])
    paths = [folder / "0.mp4", tmp_path / "empty.mp4", tmp_path / "cut.mp4", folder / "3.mp4"]
    return video_list(paths, [0, 1, 2, 0])


@pytest.mark.parametrize("workers", [0, 1])
def test_fail_stops_at_a_damaged_video(damaged, workers):
    with pytest.raises(VideoReadError, match=r"empty.mp4: the file is empty") as caught:
        list(make_loader(VideoDataset(damaged, SPEC), [[0, 1]], workers=workers))
    message = str(caught.value)
    assert message.endswith('download or copy it again; on_error="skip" leaves it out')
    assert "\n" not in message  # a worker's traceback
    traceback.clear_frames(caught.tb)  # they hold the loader, which takes 5 s to end its workers when it is found late


def test_skip_leaves_it_out_and_says_so(damaged):
    loader = make_loader(VideoDataset(damaged, SPEC, on_error="skip"), [[0, 1], [1, 2], [2, 3]])
    first, none, last = loader
    assert [batch.indices.tolist() for batch in (first, none, last)] == [[0], [], [3]]
    assert [batch.targets.tolist() for batch in (first, none, last)] == [[0], [], [0]]
    assert (none.clips.shape, none.clips.dtype) == ((0, 3, 3, 4, 32, 32), torch.float32)
    grey = VideoDataset(damaged, ClipSpec(4, size=32, in_chans=1), on_error="skip")
    assert [batch.clips.shape for batch in make_loader(grey, [[1], [0]])] == [(n, 3, 1, 4, 32, 32) for n in (0, 1)]
    drawn = VideoDataset(damaged, ClipSpec(4, size=32, in_chans=1), training=True, on_error="skip")
    for batch in make_loader(drawn, [[1], [0]]):
        assert (batch.clips.shape[1:], batch.clips.dtype) == ((1, 3, 4, 32, 32), torch.uint8)
    assert [index for index, _ in none.skipped] == [1, 2]
    assert "empty.mp4" in none.skipped[0][1]
    assert "cut.mp4" in none.skipped[1][1]


def test_missing_videos_fail_or_are_left_out(folder):
    samples = (Sample(str(folder / "0.mp4"), 0),)
    videos = VideoList("mine", "train", None, ("run",), samples, (Sample("gone.mp4", 0),))
    with pytest.raises(MissingVideosError, match=r"1 found, 1 missing(.|\n)*gone.mp4(.|\n)*skip"):
        VideoDataset(videos, SPEC)
    assert len(VideoDataset(videos, SPEC, on_error="skip")) == 1
    with pytest.raises(FileNotFoundError, match="Check the folder"):
        VideoDataset(VideoList("mine", "train", None, ("run",), (), samples), SPEC, on_error="skip")


@pytest.mark.parametrize("option", [{"on_error": "ignore"}, {"where": "end"}])
def test_dataset_refuses_nonsense(videos, option):
    with pytest.raises(ValueError, match="expected"):
        VideoDataset(videos, SPEC, **option)
