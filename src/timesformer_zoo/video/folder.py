"""A folder of pictures read as the frames of a video: in order, upright, 8-bit RGB, or one clear error.

Legend: C channels, T frames, H W pixels.
"""

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps

from timesformer_zoo.errors import VideoReadError
from timesformer_zoo.video.pixels import Pixels

__all__ = ["IMAGE_SUFFIXES", "FrameFolder"]

IMAGE_SUFFIXES = frozenset((".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"))

PathLike = str | os.PathLike[str]


class FrameFolder:
    """The pictures of a folder as the frames of a video, ordered by the numbers in their names.

    Hidden files (macOS puts a "._1.jpg" beside a "1.jpg"), folders and files that are no pictures don't count.

    Attributes:
        num_frames: how many there are.
        fps: None: a folder does not say.

    Raises:
        VideoReadError: no such folder, no picture in it, or names that give no single order.
    """

    fps: float | None = None

    def __init__(self, path: PathLike) -> None:
        self.path = os.fsdecode(path)
        try:
            with os.scandir(self.path) as entries:
                names = [entry.name for entry in entries if _is_picture(entry)]
        except OSError as error:
            raise VideoReadError(f"{self.path}: cannot be listed ({error.strerror}); check the path") from error
        if not names:
            suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
            raise VideoReadError(f"{self.path}: no pictures in this folder; expected {suffixes}")
        self._names = sorted(names, key=_natural)
        self._check_order()
        self.num_frames = len(self._names)
        self._first: tuple[str, tuple[int, ...]] | None = None  # the first picture that was read, and its (H, W)

    def frames(self, indices: Sequence[int]) -> torch.Tensor:
        """`(T, H, W, C) uint8` RGB of any indices, in the order given; repeated ones are decoded once.

        Raises: as `stream`.
        """
        decoded = dict(zip(sorted(set(indices)), self.stream(indices), strict=True))
        return torch.stack([decoded[i] for i in indices])

    def stream(self, indices: Iterable[int], pixels: Pixels | None = None) -> Iterator[torch.Tensor]:
        """Each distinct frame of `indices` once, `(H, W, C) uint8` RGB or what `pixels` picks, in ascending order.

        Of 16 bits a channel the upper eight count, and transparency does not, as in FFmpeg.

        Raises:
            IndexError: an index below 0 or beyond the last frame.
            VideoReadError: a picture can't be decoded, or is of another size than those before.
        """
        wanted = set(indices)
        if not wanted or min(wanted) < 0 or max(wanted) >= self.num_frames:
            got = f"{min(wanted)} to {max(wanted)}" if wanted else "none"
            raise IndexError(f"{self.path}: frame indices are {got}, expected 0 to {self.num_frames - 1}")
        for index in sorted(wanted):
            name = self._names[index]
            picture = _read(os.path.join(self.path, name))
            self._first = self._first or (name, picture.shape[:2])
            if picture.shape[:2] != self._first[1]:
                sizes = " and ".join(f"{n} of {w} × {h}" for n, (h, w) in (self._first, (name, picture.shape[:2])))
                raise VideoReadError(f"{self.path}: frames are of one size, got {sizes} pixels; extract them again")
            yield torch.from_numpy(picture if pixels is None else pixels.pick(picture))

    def close(self) -> None:
        """Nothing stays open from one picture to the next."""

    def _check_order(self) -> None:
        """A folder may hold img_1 and flow_x_1 both, or 1.jpg and 1.png: sorted, they would be one wrong video."""
        series: dict[str, list[str]] = defaultdict(list)
        numbers: dict[tuple[str, ...], str] = {}
        for name in self._names:
            stem = os.path.splitext(name)[0].lower()
            series[re.sub(r"\d+", "#", stem)].append(name)
            key = tuple(part.lstrip("0") if part.isdecimal() else part for part in re.split(r"(\d+)", stem))
            if (other := numbers.setdefault(key, name)) != name:
                raise VideoReadError(f"{self.path}: {other} and {name} are the same frame; keep one")
        if len(series) > 1 and max(map(len, series.values())) > 1:
            (_, most), (_, other_names) = sorted(series.items(), key=lambda item: -len(item[1]))[:2]
            raise VideoReadError(
                f"{self.path}: expected names alike but for their numbers, got {most[0]} ({len(most)} like it) and "
                f"{other_names[0]} ({len(other_names)}); give each kind a folder of its own"
            )


def _is_picture(entry: os.DirEntry[str]) -> bool:
    """By its name; a link that leads nowhere is one, too: it is a frame that would be missed."""
    named_so = os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES and not entry.name.startswith(".")
    return named_so and (entry.is_file() or (entry.is_symlink() and not os.path.exists(entry.path)))


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts frame2 before frame10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _read(path: str) -> npt.NDArray[np.uint8]:
    """(H, W, 3) RGB, turned as its EXIF says."""
    try:
        with Image.open(path) as image:
            if image.mode == "F" or (image.mode == "I" and image.format == "TIFF"):
                raise ValueError("32 bits a pixel, of no stated range; expected 8 or 16")
            ImageOps.exif_transpose(image, in_place=True)
            if image.mode.startswith("I"):  # 16-bit grey: Pillow's own conversion makes all from 255 on white
                grey = (np.asarray(image) >> 8).astype(np.uint8)
                return np.repeat(grey[..., None], 3, axis=-1)
            if "transparency" in image.info:  # a palette's must be converted on the way, says Pillow
                return np.array(image.convert("RGBA").convert("RGB"))
            return np.array(image.convert("RGB"))
    except Exception as error:  # a damaged file makes Pillow raise OSError, SyntaxError, ValueError, struct.error …
        reason = getattr(error, "strerror", None) or error
        raise VideoReadError(f"{path}: cannot be decoded ({reason}); extract the frames again") from error
