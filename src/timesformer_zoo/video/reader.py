"""Reading video files: exactly the frames asked for, upright, or one clear error. The only importer of decord.

decord (and its fork decord2, same module name) is fast, but some of its habits need a hand, each tested:

- A seek lands on wrong frames, silently, where frames are stored in another order than shown and key frames are no
  clean cuts (x265's default, open-GOP H.264, B-frames in AVI). `Video` lets it seek only where the container proves
  that seeks are exact, and walks forward elsewhere.
- It repeats the last good frame for one that it fails to decode; `fault_tol` turns that into an error.
- Truncated AVI and Matroska files read as shorter videos; the length that the container states is checked first.
- It counts frames that an edit list hides (a trim without re-encoding) and then runs out of frames.

decord itself turns frames upright by the rotation in MP4 and QuickTime files; that of Matroska only decord2 does.

Legend: V views, C channels, T frames, H W pixels.
"""

import math
import os
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from types import ModuleType
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image

from timesformer_zoo.errors import VideoReadError
from timesformer_zoo.video.index import REWRAP, inspect, read_error

__all__ = ["IMAGE_SUFFIXES", "FrameFolder", "Frames", "Video", "open_video"]

IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp"))

PathLike = str | os.PathLike[str]

_MAX_REORDER = 16  # frames that H.264 and HEVC may hold back to show them in another order than stored


class Video:
    """An open video file that gives frames by index.

    Args:
        path: a file in a format that FFmpeg reads (but no MPEG transport stream).
        num_threads: decoder threads; 0: one a core. Take 1 inside the workers of a DataLoader.

    Attributes:
        num_frames: how many frames can be read.
        fps: average frame rate, also where the rate varies; None where it is unknown.

    Raises:
        VideoReadError: missing, forbidden, a folder, empty, truncated, or not a video (it is an OSError, too).
    """

    _reader: Any  # decord's; None once closed

    def __init__(self, path: PathLike, *, num_threads: int = 0) -> None:
        self.path = os.fsdecode(path)
        self._num_threads = num_threads
        container = inspect(self.path)
        self._open()
        fps = self._reader.get_avg_fps()
        self.fps: float | None = fps if 0 < fps < math.inf else None
        self.num_frames = len(self._reader)
        keys = [int(k) for k in self._reader.get_key_indices()]
        # Frames not to skip over on a walk: all, where a file has no time for each, by which decord skips.
        self._stops: Sequence[int] = keys if container.timed else range(self.num_frames)
        self._seekable = False
        seekable = container.in_order
        starts_late = container.may_start_late and any(k <= _MAX_REORDER for k in keys[1:2])
        pts, dts = container.pts, container.dts
        if (pts < container.start).any():  # FFmpeg skips what is stored before the last key frame that is needed
            pts, dts = pts[-self.num_frames :], dts[-self.num_frames :]
        if len(pts) == self.num_frames:
            hidden = int((pts < container.start).sum())
            shown_at = pts.argsort(kind="stable").argsort()  # storage order -> place in the order shown
            self.num_frames -= hidden
            # decord takes the storage index of a key frame for its place in the order shown: right in clean cuts only.
            seekable = hidden == 0 and bool((shown_at[keys] == keys).all())
            starts_late = bool((dts[keys[1:2]] <= pts.min()).any())
        if self.num_frames < 1:
            raise read_error(self.path, "it has no frames to show", "check that it plays")
        if starts_late:
            self._count()
        self._seekable = seekable

    def __repr__(self) -> str:
        return f"Video({self.path!r}, num_frames={self.num_frames}, fps={self.fps})"

    @property
    def height(self) -> int:
        """Of the upright frame, in pixels."""
        return self._size[0]

    @property
    def width(self) -> int:
        """Of the upright frame, in pixels."""
        return self._size[1]

    def close(self) -> None:
        """Stop the decoder's threads and free its memory. Who reads on opens the file again."""
        self._reader = None

    def frames(self, indices: Sequence[int]) -> torch.Tensor:
        """`(T, H, W, C) uint8` RGB of any indices, in the order given; repeated ones are decoded once.

        Raises:
            IndexError: an index below 0 or beyond the last frame.
            VideoReadError: a frame can't be decoded.
        """
        decoded = dict(zip(sorted(set(indices)), self.stream(indices), strict=True))
        return torch.stack([decoded[i] for i in indices])

    def stream(self, indices: Iterable[int]) -> Iterator[torch.Tensor]:
        """Each distinct frame of `indices` once, `(H, W, C) uint8`, in ascending order, decoded as it is taken.

        Raises: as `frames`.
        """
        wanted = set(indices)
        if not wanted or min(wanted) < 0 or max(wanted) >= self.num_frames:
            got = f"{min(wanted)} to {max(wanted)}" if wanted else "none"
            raise IndexError(f"{self.path}: frame indices are {got}, expected 0 to {self.num_frames - 1}")
        for index in sorted(wanted):
            if self._reader is None:
                self._open()
            if not self._seekable:
                if index < self._next:
                    self._open()
                # decord seeks when it has to pass a key frame. Reading the frame before each leaves none to pass.
                for stop in self._stops[bisect_right(self._stops, self._next) : bisect_right(self._stops, index)]:
                    self._read(stop - 1)
            yield self._read(index)

    def _count(self) -> None:
        """Walks to the last frame. Where a second key frame is stored before the first frame is due, decord may start
        with the second; then its frames run out early."""
        try:
            next(self.stream([self.num_frames - 1]))
        except VideoReadError as error:
            raise read_error(self.path, f"not all {self.num_frames} frames can be decoded", REWRAP) from error

    def _open(self) -> None:
        decord = _decord()
        try:
            # The share of repeated frames to bear. 0 would mean any number; one frame is more than this of any video.
            self._reader = decord.VideoReader(self.path, num_threads=self._num_threads, fault_tol=1e-9)
        except Exception as error:  # decord raises DECORDError, RuntimeError and AssertionError alike
            what = "there is no video in it that FFmpeg can read" + _first_line(error)
            raise read_error(self.path, what, "check that it plays, or download it again") from error
        self._next = 0  # the frame that comes without a seek

    def _read(self, index: int) -> torch.Tensor:
        try:
            with _decord().bridge.use_torch():
                frame: torch.Tensor = self._reader[index]
        except Exception as error:  # DECORDError or StopIteration
            what = f"frame {index} of {self.num_frames} can't be decoded" + _first_line(error)
            self._open()  # decord doesn't recover from an error
            raise read_error(self.path, what, "the file is damaged: download it again or re-encode it") from error
        self._next = index + 1
        height, width, channels = frame.shape
        if channels != 3:
            # FFmpeg pads rows; where a row is then a whole multiple of the width, decord takes padding for channels.
            frame = frame.reshape(height, width * channels)[:, : width * 3].reshape(height, width, 3)
        return frame

    @cached_property
    def _size(self) -> tuple[int, int]:
        height, width, _ = next(self.stream([0])).shape
        return height, width


def _decord() -> ModuleType:
    try:
        import decord
    except ImportError as error:
        raise ImportError(
            "reading videos needs decord: pip install decord (Linux x86_64, Windows) or decord2 (elsewhere)"
        ) from error
    decord.logging.set_level(decord.logging.QUIET)  # FFmpeg's own lines on stderr; what matters is in our error
    return decord  # type: ignore[no-any-return]


def _first_line(error: BaseException) -> str:
    """decord's reason, without time stamps, source lines and the C++ stack."""
    line = re.sub(r"\[\d\d:\d\d:\d\d\] \S+:\d+: ", "", str(error)).strip().partition("\n")[0]
    return f" ({line})" if line else ""


class Frames(Protocol):
    """What `Video` and `FrameFolder` have in common."""

    path: str
    num_frames: int
    fps: float | None

    def frames(self, indices: Sequence[int]) -> torch.Tensor: ...

    def stream(self, indices: Iterable[int]) -> Iterator[torch.Tensor]: ...

    def close(self) -> None: ...


class FrameFolder:
    """The pictures of a folder as the frames of a video, ordered by the numbers in their names.

    Attributes:
        num_frames: how many there are.
        fps: None: a folder does not say.

    Raises:
        VideoReadError: no such folder, or no picture in it.
    """

    fps: float | None = None

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            names = [name for name in os.listdir(path) if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES]
        except OSError as error:
            raise VideoReadError(f"{path}: cannot be listed ({error.strerror}); check the path") from error
        if not names:
            raise VideoReadError(f"{path}: no pictures in this folder; expected {', '.join(sorted(IMAGE_SUFFIXES))}")
        self._names = sorted(names, key=_natural)
        self.num_frames = len(self._names)

    def stream(self, indices: Iterable[int]) -> Iterator[torch.Tensor]:
        """Each distinct frame of `indices` once, `(H, W, C) uint8` RGB, in ascending order.

        Raises:
            VideoReadError: a picture cannot be decoded.
        """
        for index in sorted(set(indices)):
            path = os.path.join(self.path, self._names[index])
            try:
                with Image.open(path) as image:
                    pixels = np.array(image.convert("RGB"))
            except OSError as error:
                raise VideoReadError(f"{path}: cannot be decoded ({error}); extract the frames again") from error
            yield torch.from_numpy(pixels)

    def frames(self, indices: Sequence[int]) -> torch.Tensor:
        """`(T, H, W, C) uint8` RGB of any indices, in the order given."""
        decoded = dict(zip(sorted(set(indices)), self.stream(indices), strict=True))
        return torch.stack([decoded[i] for i in indices])

    def close(self) -> None:
        """Nothing stays open from one picture to the next."""


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts frame2 before frame10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def open_video(path: PathLike, *, num_threads: int = 0) -> Frames:
    """A video file, or a folder of frames.

    Raises:
        VideoReadError: it cannot be read.
    """
    return FrameFolder(os.fsdecode(path)) if os.path.isdir(path) else Video(path, num_threads=num_threads)
