"""Reading video files: exactly the frames asked for, upright, or one clear error.

Legend: T frames, H W pixels, C channels.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Literal, Protocol, cast

import torch

from timesformer_zoo.video.folder import FrameFolder
from timesformer_zoo.video.isolated import IsolatedSource
from timesformer_zoo.video.origin import Readable, name_of, origin_of
from timesformer_zoo.video.pixels import Pixels
from timesformer_zoo.video.source import FileSource, Source

__all__ = ["Frames", "Video", "open_video"]


class Video:
    """An open video file that gives frames by index: frame i is the i-th picture that a player would show.

    Args:
        path: of a file in a format that FFmpeg reads; or an address that fsspec knows ("https://…", "hf://…", "s3://…"),
            a member of a tar file ("clips.tar::00042.mp4"), bytes, or a binary file object that can seek.
        num_threads: decoder threads; 0: one a core. Take 1 inside the workers of a DataLoader.
        decoder: "decord" or "pyav"; "auto" is PyAV, for every file. decord gives the same frames, of files where the
            index proves its seek exact, and refuses others; of damaged files it may give a frame's neighbour.
        count: decode all frames once at opening to count them, as is done of itself where the file does not tell.
        isolated: read it in another process, which is started with the first such file and shared by all: should native
            code of a decoder crash on the file, that is a VideoReadError, and this process lives.

    Attributes:
        path: what messages call it: a path or an address, without a password or token.
        num_frames: how many it shows.
        fps: average frame rate, also where the rate varies; None where it is unknown.
        times: when each frame is shown, in seconds after the first, `(num_frames,) float64`.

    Raises:
        VideoReadError: missing, forbidden, a folder, empty, truncated, or not a video (it is an OSError, too).
    """

    def __init__(
        self,
        path: Readable,
        *,
        num_threads: int = 0,
        decoder: Literal["auto", "decord", "pyav"] = "auto",
        count: bool = False,
        isolated: bool = False,
    ) -> None:
        file = origin_of(path)
        self.path = name_of(file)
        source = IsolatedSource if isolated else FileSource
        self._source: Source = source(file, num_threads=num_threads, decoder=decoder, count=count)
        self.num_frames, self.fps, self.times = self._source.num_frames, self._source.fps, self._source.times

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

    @property
    def duration(self) -> float:
        """Seconds from the first frame to the end of the last one, which is taken to last as long as the others."""
        last = float(self.times[-1])
        return last + (last / (self.num_frames - 1) if self.num_frames > 1 else 1 / (self.fps or 1))

    def close(self) -> None:
        """Stop the decoder's threads and free its memory. Who reads on opens the file again."""
        self._source.close()

    def frames(self, indices: Sequence[int]) -> torch.Tensor:
        """`(T, H, W, C) uint8` RGB of any indices, in the order given; repeated ones are decoded once.

        Raises:
            IndexError: an index below 0 or beyond the last frame.
            VideoReadError: a frame can't be decoded.
        """
        decoded = dict(zip(sorted(set(indices)), self.stream(indices), strict=True))
        return torch.stack([decoded[i] for i in indices])

    def stream(self, indices: Iterable[int], pixels: Pixels | None = None) -> Iterator[torch.Tensor]:
        """Each distinct frame of `indices` once, `(H, W, C) uint8`, in ascending order, decoded as it is taken.

        Args:
            pixels: for `crop_views`: what to pick of each frame.

        Raises: as `frames`.
        """
        wanted = set(indices)
        if not wanted or min(wanted) < 0 or max(wanted) >= self.num_frames:
            got = f"{min(wanted)} to {max(wanted)}" if wanted else "none"
            raise IndexError(f"{self.path}: frame indices are {got}, expected 0 to {self.num_frames - 1}")
        yield from map(torch.from_numpy, self._source.stream(sorted(wanted), pixels))

    @cached_property
    def _size(self) -> tuple[int, int]:
        height, width, _ = next(self.stream([0])).shape
        return height, width


class Frames(Protocol):
    """What `Video` and `FrameFolder` have in common."""

    path: str
    num_frames: int
    fps: float | None

    def frames(self, indices: Sequence[int]) -> torch.Tensor: ...

    def stream(self, indices: Iterable[int], pixels: Pixels | None = None) -> Iterator[torch.Tensor]: ...

    def close(self) -> None: ...


def open_video(path: Readable | Frames, *, num_threads: int = 0, isolated: bool = False) -> Frames:
    """A video file, or a folder of frames.

    Args:
        path: of either; of a file all else that `Video` takes, too. What is open already is given back.
        num_threads, isolated: see `Video`; they are for files.

    Raises:
        VideoReadError: it cannot be read.
    """
    if hasattr(path, "num_frames"):
        return cast(Frames, path)
    if isinstance(path, (str, os.PathLike)) and os.path.isdir(path):
        return FrameFolder(path)
    return Video(path, num_threads=num_threads, isolated=isolated)
