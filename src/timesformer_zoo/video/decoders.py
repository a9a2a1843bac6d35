"""The two decoders: PyAV, which follows the index packet by packet, and decord, which seeks by itself.

Legend: H W pixels.
"""

import functools
import itertools
import os
import re
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from timesformer_zoo.video import bitstream
from timesformer_zoo.video.container import Media, read_error
from timesformer_zoo.video.index import Entry, FrameIndex, decode, pack, packets_of
from timesformer_zoo.video.origin import File, name_of

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

__all__ = ["DECODERS", "DecordDecoder", "PyAVDecoder"]

Pixels = npt.NDArray[np.uint8]

_DAMAGED = "the file is damaged: download it again or re-encode it"

# Decoders of FFmpeg that fill damage with what they showed before a seek, and don't tell.
_HAS_MEMORY = {"ffv1"}


class PyAVDecoder:
    """Frames by their place in the order shown.

    A frame is known by its packet's time, which no other has. So a wrong one can't be taken for it, whatever a seek or
    damage did. What lies behind damage, up to the next entry, is an error: FFmpeg would fill it with whatever its
    memory holds. Where there are no times the file is read from its first packet on, as a player does.

    Pictures that no other leans on are decoded only where they are wanted: in H.264 with B-frames mostly half of them.
    """

    def __init__(self, file: File, index: FrameIndex, media: Media | None, threads: int) -> None:
        self._file, self._index, self._threads = file, index, threads
        self._media = media
        self._run: Iterator[tuple[int, VideoFrame]] | None = None  # of (place, frame)
        self._next = 0  # the place that the run gives next
        self._wanted: frozenset[int] = frozenset()
        self._last = 0  # of what is wanted
        self._dropped: set[int] = set()  # places whose packets the run left out

    def close(self) -> None:
        self._run = None
        if self._media is not None:
            self._media.container.close()
        self._media = None

    def stream(self, places: Sequence[int]) -> Iterator[Pixels]:
        """`(H, W, 3)` each. `places` ascend. Raises VideoReadError."""
        wanted = frozenset(places)
        for place in places:
            self._wanted, self._last = wanted, places[-1]  # another stream may have come in between
            frame = self._find(place)
            if frame is None:
                what = f"frame {place} of {self._index.num_frames} can't be decoded"
                as_players = (
                    "" if self._index.pts is None else "; Video(path, count=True) gives what a player makes of it"
                )
                raise read_error(name_of(self._file), what, _DAMAGED + as_players)
            yield self._pixels(frame)

    def _find(self, place: int) -> "VideoFrame | None":
        """None: it does not come, or there is damage before it."""
        entry = self._index.entry(place)
        if self._run is None or place < self._next or entry.place > self._next or place in self._dropped:
            self._next = entry.place
            self._dropped.clear()
            self._run = self._frames_from(entry)
        run, self._run = self._run, None  # gone, unless it gives what is expected of it
        for found, frame in run:
            while self._next in self._dropped:
                self._next += 1
            if found != self._next or (frame.is_corrupt and self._index.pts is not None):
                return None
            self._next += 1
            if found == place:
                self._run = run
                return frame
        return None

    def _frames_from(self, entry: Entry) -> Iterator[tuple[int, "VideoFrame"]]:
        media = self._media = self._media or Media(self._file)
        packets = None if self._index.pts is None else self._seek(media, entry)
        if packets is None:  # count from the file's first packet
            self.close()
            media = self._media = Media(self._file)
            packets = itertools.islice(packets_of(media), entry.packet, None)
        if self._index.pts is None:
            return enumerate(decode(media, self._threads, packets, conceal=True))
        frames = decode(media, self._threads, self._needed(media, packets))
        places = ((self._index.place(frame.pts), frame) for frame in frames)
        # Frames before the entry's may lean on what was not decoded.
        return ((place, frame) for place, frame in places if place >= entry.place)

    def _needed(self, media: Media, packets: Iterator["Packet[VideoStream]"]) -> Iterator["Packet[VideoStream]"]:
        """Without those of pictures that are neither wanted nor leaned on; who asks next may want the later ones."""
        context = media.stream.codec_context
        codec = context.codec.canonical_name
        length = bitstream.length_size(codec, context.extradata)
        for packet in packets:
            place = self._index.place(packet.pts)
            if (
                place < self._last
                and place not in self._wanted
                and bitstream.is_spare(codec, memoryview(packet), length)
            ):
                self._dropped.add(place)
                continue
            yield packet

    def _seek(self, media: Media, entry: Entry) -> Iterator["Packet[VideoStream]"] | None:
        """The packets from an entry on; None: the demuxer's seek does not find it."""
        import av

        pts, dts, _ = entry.mark
        if pts is None or media.stream.codec_context.name in _HAS_MEMORY:
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

    def _pixels(self, frame: "VideoFrame") -> Pixels:
        """`(H, W, 3)` RGB, turned upright."""
        pixels = frame.to_ndarray(format="rgb24")
        return np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90) % 4))


class DecordDecoder:
    """decord, for files where its seek by a frame's number is exact. Frames are turned upright by it."""

    def __init__(self, file: File, index: FrameIndex, media: Media | None, threads: int) -> None:
        if media is not None:
            media.container.close()
        if not index.plain:
            what = "decord would not give exactly the frames asked for"
            raise read_error(name_of(file), what, 'take decoder="auto"')
        if not isinstance(file, str):
            raise read_error(file.name, "decord reads files of this machine alone", 'take decoder="auto"')
        self._path, self._index, self._threads = file, index, threads
        self._reader: Any = None

    def close(self) -> None:
        self._reader = None

    def stream(self, places: Sequence[int]) -> Iterator[Pixels]:
        """`(H, W, 3)` each. Raises VideoReadError."""
        return map(self._read, places)

    def _read(self, place: int) -> Pixels:
        decord = _decord()
        try:
            if self._reader is None:
                path = os.path.abspath(self._path)  # a relative a:b would be a protocol
                # fault_tol: the share of repeated frames to bear. 0 would mean any; one frame is more than this of all.
                self._reader = decord.VideoReader(path, num_threads=self._threads, fault_tol=1e-9)
            frame = self._reader[place]
            # Of decord's own kind, or as the user's bridge makes them.
            pixels: Pixels = frame.asnumpy() if hasattr(frame, "asnumpy") else np.asarray(frame)
        except Exception as error:  # decord raises DECORDError, RuntimeError, StopIteration and AssertionError alike
            self._reader = None  # decord doesn't recover from an error
            what = f"frame {place} of {self._index.num_frames} can't be decoded" + _first_line(error)
            raise read_error(self._path, what, _DAMAGED) from error
        height, width, channels = pixels.shape
        if channels != 3:
            # FFmpeg pads rows; where a row is then a whole multiple of the width, decord takes padding for channels.
            pixels = pixels.reshape(height, width * channels)[:, : width * 3].reshape(height, width, 3)
        return pixels


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
