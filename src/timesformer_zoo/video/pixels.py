"""The pixels of a frame that a smaller one is made of: all others need not be sent, nor become floats.

Scaled bilinearly without antialiasing, as the authors do, a pixel is a mean of four, however much smaller the frame
becomes: of 1920 x 1080 pixels a model of 64 looks at one in seventy. Without torch, for the process that decodes.

Legend: H W pixels of a frame, h w of the scaled one, C channels.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Pixels", "neighbours", "pixels_of"]

_WORTH = 8  # whole frames have so many pixels for one of the scaled frame, before picking four for it saves time


class Pixels(NamedTuple):
    """Which rows and columns of frames (H, W) count; lists, so that JSON has them."""

    height: int  # H
    width: int
    rows: list[int]  # (2 h,): of each scaled row, the two that it lies between
    columns: list[int]  # (2 w,)

    def fits(self, height: int, width: int) -> bool:
        """Whether a frame is of the size that these are pixels of."""
        return (self.height, self.width) == (height, width)

    def pick(self, frame: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """(H, W, C) -> (2 h, 2 w, C)."""
        return frame.take(self.rows, 0).take(self.columns, 1)


def pixels_of(height: int, width: int, h: int, w: int) -> Pixels | None:
    """Those that a frame (H, W) is scaled to (h, w) from; None: so many that it is scaled as a whole."""
    if height * width < _WORTH * h * w or height < 2 * h or width < 2 * w:
        return None
    rows, columns = (neighbours(*sides)[0].ravel().tolist() for sides in ((height, h), (width, w)))
    return Pixels(height, width, rows, columns)


def neighbours(length: int, count: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Of each of `count` pixels along a side, the two that it lies between, (count, 2), and the second's weight.

    As PyTorch's bilinear interpolation has them with align_corners=False, to the last bit of the weights: its scale is
    float32, and the place is rounded once.
    """
    scale = float(np.float32(length / count))
    places = np.maximum((np.arange(count) + 0.5) * scale - 0.5, 0).astype(np.float32)
    first = places.astype(np.int64)
    return np.stack([first, np.minimum(first + 1, length - 1)], 1), places - first.astype(np.float32)
