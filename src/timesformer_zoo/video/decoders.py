"""The two decoders: PyAV, which follows the index packet by packet, and decord, which seeks by itself.

Legend: H W pixels.
"""

import functools
import importlib.util
import itertools
import os
import re
from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from timesformer_zoo.video.container import Media, read_error
from timesformer_zoo.video.index import Entry, FrameIndex, decode, pack, packets_of

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

__all__ = ["DECODERS", "DecordDecoder", "PyAVDecoder", "has_decord"]

Pixels = npt.NDArray[np.uint8]

_DAMAGED = "the file is damaged: download it again or re-encode it"


class PyAVDecoder:
    """Frames by their place in the order shown; quick where places ascend.

    A frame is known by its packet's time, which no other has. So a wrong one can't be taken for it, whatever a seek or
    damage did. Where a picture does not come, the file is read from its first frame on, as a player would; if it does
    not come then, either, it is an error.
    """

    def __init__(self, path: str, index: FrameIndex, threads: int) -> None:
        self._path, self._index, self._threads = path, index, threads
        self._media: Media | None = None
        self._run: Iterator[tuple[int, VideoFrame]] | None = None  # of (place, frame)
        self._next = 0  # the place that the run gives next
        self._as_a_player = index.pts is None
        self._end = index.num_frames  # the first frame that is known not to come

    def close(self) -> None:
        self._run = None
        if self._media is not None:
            self._media.container.close()
        self._media = None

    def read(self, place: int) -> Pixels:
        """`(H, W, 3)`. Raises VideoReadError."""
        frame = self._find(place) if place < self._end else None
        if frame is None and not self._as_a_player:
            self.close()
            self._as_a_player = True
            frame = self._find(place)
        if frame is None:
            self._end = min(self._end, self._next)
            raise read_error(self._path, f"frame {self._end} of {self._index.num_frames} can't be decoded", _DAMAGED)
        return _pixels(frame)

    def _find(self, place: int) -> "VideoFrame | None":
        """None: a frame before it, or itself, does not come."""
        entry = self._index.entries[0] if self._as_a_player else self._index.entry(place)
        if self._run is None or place < self._next or entry.place > self._next:
            self._next = entry.place
            self._run = self._frames_from(entry)
        run, self._run = self._run, None  # gone, unless it gives what is expected of it
        for found, frame in run:
            if found != self._next:
                break
            self._next += 1
            if found == place:
                self._run = run
                return frame
        return None

    def _frames_from(self, entry: Entry) -> Iterator[tuple[int, "VideoFrame"]]:
        media = self._media or self._open()
        packets = self._seek(media, entry) if entry.packet else None
        if packets is None:  # count from the file's first packet
            media = self._open()
            packets = itertools.islice(packets_of(media), entry.packet, None)
        frames = decode(media, self._threads, packets)
        if self._index.pts is None:
            return enumerate(frames)
        places = ((self._index.place(frame.pts), frame) for frame in frames)
        # Frames before the entry's may lean on what was not decoded.
        return ((place, frame) for place, frame in places if place >= entry.place)

    def _open(self) -> Media:
        self.close()
        self._media = Media(self._path)
        context = self._media.stream.codec_context
        # What is made of damage would depend on frame threads.
        context.thread_type = "SLICE" if self._as_a_player else "AUTO"
        return self._media

    def _seek(self, media: Media, entry: Entry) -> Iterator["Packet[VideoStream]"] | None:
        """The packets from an entry on; None: the demuxer's seek does not find it."""
        import av

        pts, dts, _ = entry.mark
        if pts is None:
            return None
        try:
            media.container.seek(pts if dts is None else dts, stream=media.stream)
        except (av.FFmpegError, OverflowError):
            return None
        packets = packets_of(media)
        for packet in packets:
            if pack(packet) == entry.mark:
                return itertools.chain([packet], packets)
            if packet.pts is None or packet.pts > pts:
                break
        return None


def _pixels(frame: "VideoFrame") -> Pixels:
    """`(H, W, 3)` RGB, turned upright."""
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90) % 4))


class DecordDecoder:
    """decord, for files where its seek by a frame's number is exact. Frames are turned upright by it."""

    def __init__(self, path: str, index: FrameIndex, threads: int) -> None:
        self._path, self._index, self._threads = path, index, threads
        self._reader: Any = None

    def close(self) -> None:
        self._reader = None

    def read(self, place: int) -> Pixels:
        """`(H, W, 3)`. Raises VideoReadError."""
        decord = _decord()
        try:
            if self._reader is None:
                path = os.path.abspath(self._path)  # a relative a:b would be a protocol
                # fault_tol: the share of repeated frames to bear. 0 would mean any; one frame is more than this of all.
                self._reader = decord.VideoReader(path, num_threads=self._threads, fault_tol=1e-9)
            frame = self._reader[place]
            pixels: Pixels = (
                frame.asnumpy() if hasattr(frame, "asnumpy") else np.asarray(frame)
            )  # as a user's bridge is
        except Exception as error:  # decord raises DECORDError, RuntimeError, StopIteration and AssertionError alike
            self._reader = None  # decord doesn't recover from an error
            what = f"frame {place} of {self._index.num_frames} can't be decoded" + _first_line(error)
            raise read_error(self._path, what, _DAMAGED) from error
        height, width, channels = pixels.shape
        if channels != 3:
            # FFmpeg pads rows; where a row is then a whole multiple of the width, decord takes padding for channels.
            pixels = pixels.reshape(height, width * channels)[:, : width * 3].reshape(height, width, 3)
        return pixels


def has_decord() -> bool:
    """Whether decord2 is installed: there are no wheels of it for some machines."""
    return importlib.util.find_spec("decord") is not None


@functools.cache
def _decord() -> ModuleType:
    try:
        import decord
    except ImportError as error:
        raise ImportError("this decoder needs decord2: pip install decord2, or leave it to PyAV") from error
    if int(decord.__version__.partition(".")[0]) < 3:
        raise ImportError(
            f"found decord {decord.__version__} in the place of decord2; its FFmpeg of 2018 gives wrong frames: "
            "pip uninstall -y decord decord2 && pip install decord2"
        )
    decord.logging.set_level(decord.logging.QUIET)  # FFmpeg's own lines on stderr; what matters is in our error
    return decord  # type: ignore[no-any-return]


def _first_line(error: BaseException) -> str:
    """decord's reason, without time stamps, source lines and the C++ stack."""
    line = re.sub(r"\[\d\d:\d\d:\d\d\] \S+:\d+: ", "", str(error)).strip().partition("\n")[0]
    return f" ({line})" if line else ""


DECODERS: dict[str, type[DecordDecoder] | type[PyAVDecoder]] = {"decord": DecordDecoder, "pyav": PyAVDecoder}
