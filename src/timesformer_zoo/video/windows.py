"""The windows of a video, read from its first to its last: each frame is decoded once, whatever windows share it.

Legend: V views, C channels, T frames, H W pixels.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import torch

from timesformer_zoo.errors import VideoReadError
from timesformer_zoo.video.clip import ClipSpec
from timesformer_zoo.video.pixels import Pixels
from timesformer_zoo.video.reader import Frames
from timesformer_zoo.video.transform import crop_views, view_pixels

__all__ = ["WindowBatch", "ahead", "stream_windows"]

Item = TypeVar("Item")

_PATIENCE = 64  # frames in a row that can't be decoded, of as many windows: of two a second, half a minute


@dataclass(frozen=True, eq=False)
class WindowBatch:
    """Neighbouring windows of a video."""

    windows: tuple[int, ...]  # numbers of those that could be read
    views: torch.Tensor  # (len(windows) * crops, C, T, H, W) float32, a window's crops together
    lost: dict[int, VideoReadError]  # frames that could not be decoded, and why


def stream_windows(
    video: Frames, starts: Sequence[int], offsets: Sequence[int], spec: ClipSpec, together: int, first: int = 0
) -> Iterator[WindowBatch]:
    """Read windows in batches, in the order of time.

    Each frame that a window needs is decoded, resized and normalised once, in ascending order, and kept while later
    windows share it. Frames that none needs are the decoder's concern: it jumps where a key frame lies between, and
    else passes over them. So windows far apart cost a jump each, as if they were read one by one.

    A frame that can't be decoded is told, and the windows that it is in are left out; the others are read on. Where
    many in a row can't, more and more of what follows is left out unread: of a file that is lost to its end, each try
    may cost a decoder the way from its beginning.

    Args:
        video: what gives the frames.
        starts: the first frame of each window, ascending.
        offsets: the frames of a window that its clip is made of, counted from its first, ascending.
        spec: its `crops`, size and normalisation count.
        together: how many windows are a batch.
        first: the window to begin with.
    """
    kept = _Kept()
    for begin in range(first, len(starts), together):
        batch = range(begin, min(begin + together, len(starts)))
        last = starts[batch[-1]] + offsets[-1]
        # Up to there later windows' frames, too: else the decoder would have to go back for them.
        sharing = range(begin, bisect_right(starts, last))
        kept.drop(starts[begin])
        new = _Reading(video, spec, [[starts[i] + offset for offset in offsets] for i in sharing], last, kept)
        frames = new.frames()
        if (one := next(frames, None)) is not None:
            kept.add(crop_views(_chain(one, frames), spec, kept.pixels), new.read)
        clips = {i: [starts[i] + offset for offset in offsets] for i in batch}
        whole = tuple(i for i, clip in clips.items() if kept.is_whole(clip))
        views = [kept.views[:, :, [kept.places[frame] for frame in clips[i]]] for i in whole]
        yield WindowBatch(whole, torch.cat(views) if views else torch.empty(0), new.lost)


def ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The same items, the next one being made in a thread of its own while the caller works on one."""
    end = object()
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = pool.submit(next, items, end)
            yield item  # type: ignore[misc]


@dataclass(eq=False)
class _Kept:
    """Frames that were read and that a later window may need."""

    views: torch.Tensor = field(default_factory=lambda: torch.empty(0))  # (crops, C, frames, H, W)
    places: dict[int, int] = field(default_factory=dict)  # frame -> where in `views`
    bad: set[int] = field(default_factory=set)  # those that can't be decoded
    pixels: Pixels | None = None  # what is picked of each, once a first one has told their size
    is_sized: bool = False
    failures: int = 0  # since a frame could be read
    given_up: int = -1  # clips that begin up to there are left out

    def is_whole(self, clip: Sequence[int]) -> bool:
        """As far as is known."""
        return clip[0] > self.given_up and self.bad.isdisjoint(clip)

    def fail(self, frame: int) -> None:
        self.bad.add(frame)
        self.failures += 1
        if self.failures > _PATIENCE:
            self.given_up = frame + 2 ** min(self.failures - _PATIENCE, 40)

    def drop(self, before: int) -> None:
        """Frames before this one."""
        left = [frame for frame in self.places if frame >= before]
        if len(left) < len(self.places):
            self.views = self.views[:, :, [self.places[frame] for frame in left]]
            self.places = {frame: place for place, frame in enumerate(left)}
        self.bad = {frame for frame in self.bad if frame >= before}

    def add(self, views: torch.Tensor, frames: Sequence[int]) -> None:
        """Later ones: (crops, C, frames, H, W)."""
        self.views = torch.cat([self.views, views], 2) if self.places else views
        self.places |= {frame: place for place, frame in enumerate(frames, len(self.places))}


class _Reading:
    """What is not yet kept of some clips, up to the frame `last`; of a clip that has a lost frame no more is read."""

    def __init__(self, video: Frames, spec: ClipSpec, clips: Sequence[Sequence[int]], last: int, kept: _Kept) -> None:
        self._video, self._spec, self._last, self._kept = video, spec, last, kept
        self._clips = clips
        self.read: list[int] = []
        self.lost: dict[int, VideoReadError] = {}

    def frames(self) -> Iterator[torch.Tensor]:
        """What counts of each, `(…, …, 3) uint8`, in ascending order."""
        kept = self._kept
        index = -1
        while wanted := self._wanted(index):
            if not kept.is_sized:
                wanted = wanted[:1]
            coming = iter(self._video.stream(wanted, kept.pixels))
            for index in wanted:
                try:
                    frame = next(coming)
                except VideoReadError as error:
                    self.lost[index] = error
                    kept.fail(index)
                    break
                kept.failures = 0
                if not kept.is_sized:
                    kept.pixels, kept.is_sized = view_pixels(frame.shape[0], frame.shape[1], self._spec), True
                    frame = frame if kept.pixels is None else torch.from_numpy(kept.pixels.pick(frame.numpy()))
                self.read.append(index)
                yield frame

    def _wanted(self, after: int) -> list[int]:
        clips = filter(self._kept.is_whole, self._clips)
        frames = {index for clip in clips for index in clip if after < index <= self._last}
        return sorted(frames - self._kept.places.keys())


def _chain(first: torch.Tensor, rest: Iterator[torch.Tensor]) -> Iterator[torch.Tensor]:
    yield first
    yield from rest
