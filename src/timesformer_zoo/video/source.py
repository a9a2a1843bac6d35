"""What a `Video` has its frames from: a file's index and the decoder that fits it. Without torch.

Legend: N frames, H W pixels.
"""

from collections.abc import Iterator, Sequence
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from timesformer_zoo.video.container import read_error
from timesformer_zoo.video.decoders import DECODERS
from timesformer_zoo.video.index import build_index
from timesformer_zoo.video.origin import File, name_of
from timesformer_zoo.video.pixels import Pixels

__all__ = ["FileSource", "Source"]


class Source(Protocol):
    """`FileSource`, or one that reads the file in another process."""

    num_frames: int
    fps: float | None
    times: npt.NDArray[np.float64]  # (N,)

    def stream(self, places: Sequence[int], pixels: Pixels | None = None) -> Iterator[npt.NDArray[np.uint8]]:
        """`(H, W, 3)` each, or what `pixels` picks of it. `places` ascend. Raises VideoReadError."""

    def close(self) -> None: ...


class FileSource:
    """A file that is read in this process. Other arguments than `file`, attributes and errors are those of `Video`."""

    def __init__(
        self,
        file: File,
        *,
        num_threads: int = 0,
        decoder: Literal["auto", "decord", "pyav"] = "auto",
        count: bool = False,
    ) -> None:
        if decoder not in ("auto", *DECODERS):
            raise ValueError(f"decoder is {decoder!r}, expected one of auto, {', '.join(DECODERS)}")
        index, media = build_index(file, count=count)
        self.num_frames, self.fps, self.times = index.num_frames, index.fps, index.times
        self._file = file
        self._decoder = DECODERS["pyav" if decoder == "auto" else decoder](file, index, media, num_threads)

    def stream(self, places: Sequence[int], pixels: Pixels | None = None) -> Iterator[npt.NDArray[np.uint8]]:
        """`(H, W, 3)` each, or what `pixels` picks of it. `places` ascend. Raises VideoReadError."""
        frames = self._decoder.stream(places)
        return frames if pixels is None else self._picked(frames, pixels)

    def _picked(self, frames: Iterator[npt.NDArray[np.uint8]], pixels: Pixels) -> Iterator[npt.NDArray[np.uint8]]:
        for frame in frames:
            if not pixels.fits(*frame.shape[:2]):
                height, width = frame.shape[:2]
                what = f"its frames are of {pixels.width} × {pixels.height} and of {width} × {height} pixels"
                raise read_error(name_of(self._file), what, "re-encode it in one size")
            yield pixels.pick(frame)

    def close(self) -> None:
        """Who reads on opens the file again."""
        self._decoder.close()
        if not isinstance(self._file, str):
            self._file.close()
