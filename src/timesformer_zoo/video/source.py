"""What a `Video` has its frames from: a file's index and the decoder that fits it. Without torch.

Legend: N frames, H W pixels.
"""

from collections.abc import Iterator, Sequence
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from timesformer_zoo.video.decoders import DECODERS
from timesformer_zoo.video.index import build_index
from timesformer_zoo.video.origin import File

__all__ = ["FileSource", "Source"]


class Source(Protocol):
    """`FileSource`, or one that reads the file in another process."""

    num_frames: int
    fps: float | None
    times: npt.NDArray[np.float64]  # (N,)

    def stream(self, places: Sequence[int]) -> Iterator[npt.NDArray[np.uint8]]:
        """`(H, W, 3)` each. `places` ascend. Raises VideoReadError."""

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

    def stream(self, places: Sequence[int]) -> Iterator[npt.NDArray[np.uint8]]:
        """`(H, W, 3)` each. `places` ascend. Raises VideoReadError."""
        return self._decoder.stream(places)

    def close(self) -> None:
        """Who reads on opens the file again."""
        self._decoder.close()
        if not isinstance(self._file, str):
            self._file.close()
