"""Videos as batches: a torch Dataset, and the loader of what it gives.

    dataset = VideoDataset(read_videos("folder", "videos"), model, training=True)
    steps = StepSampler(len(dataset), batch_size=16, stop=1000)
    for batch in make_loader(dataset, steps, workers=4):
        ...

Each random choice about a clip follows from (seed, epoch, sample) alone, as the order of the clips does (`order.py`). A
video that cannot be read stops the run, or is left out and listed: as the user says.

Legend: B videos, V views, C channels, T frames, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal, NamedTuple, cast

import torch
from torch.utils.data import DataLoader, Dataset, default_collate, get_worker_info
from torchvision import tv_tensors

from timesformer_zoo.data.order import Draw, seed_of
from timesformer_zoo.data.targets import TASKS
from timesformer_zoo.data.videos import Sample, VideoList
from timesformer_zoo.errors import MissingVideosError, VideoReadError
from timesformer_zoo.video.clip import ClipSpec, clip_spec, frame_indices
from timesformer_zoo.video.reader import Frames, open_video
from timesformer_zoo.video.transform import random_crop
from timesformer_zoo.video.views import gather_views

__all__ = ["Batch", "Item", "OnError", "VideoDataset", "Where", "make_loader"]

OnError = Literal["fail", "skip"]
Where = Literal["start", "middle"]


class Item(NamedTuple):
    """What a dataset gives for one video; no clips if it could not be read."""

    clips: torch.Tensor | None  # training: (V, 3, T, H, W) uint8; test views: (V, C, T, H, W) float32, normalised
    # () int64, the class; (K,) float32, 1 for each label that is there; or (K,) float32, the values
    target: torch.Tensor
    sample: int
    error: str = ""


class Batch(NamedTuple):
    """The videos of a batch that could be read, and why the others could not."""

    clips: torch.Tensor  # training: (B, V, 3, T, H, W) uint8; test views: (B, V, C, T, H, W) float32, normalised
    targets: torch.Tensor  # (B,) int64, or (B, K) float32
    indices: torch.Tensor  # (B,) int64, of the samples
    skipped: tuple[tuple[int, str], ...]  # (index, reason)


class VideoDataset(Dataset[Item]):
    """Clips of a list of videos, whose files are read in a process beside this one, and beside each worker of a loader.

    Training clips are bytes: move them to the device, then `normalize_clips`. Test views are normalised.

    An item is asked for by `Draw(sample, epoch)`, as `StepSampler` does; a plain index works, too, with a seed
    drawn from torch's global generator. Test views draw nothing.

    Args:
        videos: what to read.
        model_or_spec: a ClipSpec, or a model that `clip_spec` understands; its `clips` and `crops` are the test views.
        training: random clips, with the spec's scale jitter, crop and flip.
        repeats: training clips of a video in a batch (repeated augmentation); it is opened once for all.
        augment: in training, called with the cropped clip, `tv_tensors.Video` (T, 3, H, W) uint8, and returns the same;
            torchvision's v2 transforms, such as `RandAugment`, treat all frames of it alike.
        where: test clips from the "start" of each part of the video, as the authors' code (one clip starts at frame 0),
            or in its "middle", as the paper.
        seed: of all random choices.
        on_error: "fail" raises for missing and unreadable videos; "skip" leaves them out, and the batches list them.

    Raises:
        MissingVideosError: some videos are missing and on_error is "fail", or all are.
    """

    def __init__(
        self,
        videos: VideoList,
        model_or_spec: Any,
        *,
        training: bool = False,
        repeats: int = 1,
        augment: Callable[[torch.Tensor], torch.Tensor] | None = None,
        where: Where = "start",
        seed: int = 0,
        on_error: OnError = "fail",
    ) -> None:
        if on_error not in ("fail", "skip"):
            raise ValueError(f'on_error is {on_error!r}, expected "fail" or "skip"')
        if where not in ("start", "middle"):
            raise ValueError(f'where is {where!r}, expected "start" or "middle"')
        if not videos.samples or (videos.missing and on_error == "fail"):
            advice = "Check the folder" + ('; on_error="skip" leaves them out.' if videos.samples else ".")
            raise MissingVideosError(f"{videos.report()}\n{advice}")
        self.videos = videos
        self.spec = clip_spec(model_or_spec)
        self.training = training
        self.repeats = repeats
        self.augment = augment
        self.where = where
        self.seed = seed
        self.on_error = on_error

    def __len__(self) -> int:
        return len(self.videos.samples)

    def target(self, index: int) -> torch.Tensor:
        """The target of a sample, as `Item` has it."""
        return TASKS[self.videos.task].tensor(self.videos.samples[index].target, len(self.videos.classes))

    def __getitem__(self, draw: int | Draw) -> Item:
        if isinstance(draw, Draw):
            turn = [draw.turn] if draw.turn else []
            index, seed = draw.sample, seed_of(self.seed, draw.epoch, draw.sample, *turn)
        else:
            index, seed = draw, int(torch.randint(2**62, ())) if self.training else 0
        sample = self.videos.samples[index]
        target = self.target(index)
        try:
            clips = self._training_clips(sample, seed) if self.training else self._test_views(sample)
        except VideoReadError as error:
            if self.on_error == "fail":
                raise VideoReadError(f'{error}; on_error="skip" leaves it out') from error
            return Item(None, target, index, str(error))
        return Item(clips, target, index)

    def _open(self, sample: Sample) -> tuple[Frames, int, int]:
        """The video, and the first and the number of the frames of it that the sample is."""
        place = self.videos.readable(sample)
        video = open_video(place, num_threads=0 if get_worker_info() is None else 1, isolated=True)
        if sample.start is None and sample.end is None:
            return video, 0, video.num_frames
        if video.fps is None:
            raise VideoReadError(f"{sample.path}: its frame rate is unknown, so seconds cannot be found in it")
        first = round((sample.start or 0) * video.fps)
        last = video.num_frames if sample.end is None else min(round(sample.end * video.fps), video.num_frames)
        if not 0 <= first < last:
            length = video.num_frames / video.fps
            wanted = f"{sample.start or 0:g} to {'its end' if sample.end is None else f'{sample.end:g} s'}"
            raise VideoReadError(f"{sample.path}: nothing from {wanted}; the video has {length:.2f} s")
        return video, first, last - first

    def _training_clips(self, sample: Sample, seed: int) -> torch.Tensor:
        video, first, total = self._open(sample)
        clips = torch.empty(self.repeats, 3, self.spec.num_frames, *self.spec.size, dtype=torch.uint8)
        # torchvision draws from the global generator, and so does everything here; afterwards it is as it was.
        with torch.random.fork_rng(devices=[]):
            for repeat, clip in enumerate(clips):
                torch.default_generator.manual_seed(seed_of(seed, repeat))
                indices = frame_indices(self.spec, total, video.fps, training=True)
                random_crop(_frame_by_frame(video, [first + i for i in indices]), self.spec, clip)
                if self.augment is not None:
                    changed = self.augment(tv_tensors.Video(clip.transpose(0, 1)))
                    clip.copy_(changed.as_subclass(torch.Tensor).transpose(0, 1))
        video.close()
        return clips

    def _test_views(self, sample: Sample) -> torch.Tensor:
        """(clips * crops, C, T, H, W), a clip's crops together."""
        video, first, total = self._open(sample)
        places = clip_places(self.spec, self.where)
        clips = [frame_indices(self.spec, total, video.fps, clip=clip, num_clips=of) for clip, of in places]
        return gather_views(video, [[first + i for i in clip] for clip in clips], self.spec)


def _frame_by_frame(video: Frames, indices: Sequence[int]) -> Iterator[torch.Tensor]:
    """The frames of ascending indices, decoded as they are taken; of a short video the last is given repeatedly."""
    distinct = video.stream(indices)
    for _, same in groupby(indices):
        frame = next(distinct)
        yield from (frame for _ in same)


def clip_places(spec: ClipSpec, where: Where) -> list[tuple[int, int]]:
    """(clip, num_clips) for `frame_indices` of each test clip."""
    if where == "start" or spec.sampling == "uniform":  # uniform test frames are the middles of their segments already
        return [(clip, spec.clips) for clip in range(spec.clips)]
    # Every second of twice as many places: one clip is in the middle, several as far from the ends as from each other.
    return [(2 * clip + 1, 2 * spec.clips) for clip in range(spec.clips)]


@dataclass(frozen=True)
class Collate:
    """Items to a batch; a class, so that it knows the shape of a clip and of a target when there is none."""

    spec: ClipSpec
    views: int
    no_targets: torch.Tensor  # (0,) or (0, K)
    training: bool = False

    def __call__(self, items: list[Item | Exception]) -> Batch | Exception:
        for item in items:
            if isinstance(item, Exception):
                return item
        return self._batch(cast("list[Item]", items))

    def _batch(self, items: list[Item]) -> Batch:
        read = [item for item in items if item.clips is not None]
        clips = [item.clips for item in read]
        none = (0, self.views, 3 if self.training else self.spec.in_chans, self.spec.num_frames, *self.spec.size)
        dtype = torch.uint8 if self.training else torch.float32
        return Batch(
            # torch's function copies, in a worker, straight to the memory from which another process takes them.
            clips=default_collate(clips) if clips else torch.empty(none, dtype=dtype),
            targets=torch.stack([item.target for item in read]) if read else self.no_targets,
            indices=torch.tensor([item.sample for item in read], dtype=torch.int64),
            skipped=tuple((item.sample, item.error) for item in items if item.clips is None),
        )


@dataclass(frozen=True)
class _Caught(Dataset["Item | Exception"]):
    """A data set that gives an error of a video as a value, by which a worker's comes here as what it is.

    What is raised in a worker, torch turns into one whose message is the worker's traceback.
    """

    dataset: VideoDataset

    def __getitem__(self, draw: int | Draw) -> Item | Exception:
        try:
            return self.dataset[draw]
        except (VideoReadError, ModuleNotFoundError) as error:
            return error


class _Loader(DataLoader[Any]):
    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]  # torch's own iterators have no more than this
        for batch in super().__iter__():
            if isinstance(batch, Exception):
                raise batch
            yield batch


def make_loader(
    dataset: VideoDataset,
    batches: Iterable[list[Any]],
    *,
    workers: int = 0,
    pin_memory: bool | None = None,
) -> DataLoader[Batch]:
    """A torch DataLoader of `Batch`.

    Args:
        batches: lists of what the dataset is asked for, such as a `StepSampler` or `shares`.
        workers: processes that decode, with one thread each; 0: decode here, with all threads.
        pin_memory: None: if there is a GPU.

    Raises:
        VideoReadError: when a batch is taken: one of its videos can't be read, and the data set's on_error is "fail".
    """
    spec = dataset.spec
    return _Loader(
        _Caught(dataset),
        batch_sampler=batches,  # type: ignore[arg-type]  # a list of lists is fine
        num_workers=workers,
        collate_fn=Collate(
            spec,
            dataset.repeats if dataset.training else spec.clips * spec.crops,
            dataset.target(0).unsqueeze(0)[:0],
            dataset.training,
        ),
        pin_memory=torch.cuda.is_available() if pin_memory is None else pin_memory,
    )
