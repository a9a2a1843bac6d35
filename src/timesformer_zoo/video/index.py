"""Which pictures a file shows, in which order, when, and where a decoder may start to reach one.

A demuxer tells each packet's place, times and flags without decoding. Where that says all - each packet is one picture,
their times differ, the first can be decoded by itself - the index is read from it. Elsewhere (no times, pictures in
halves or that are never shown, a recording that starts in the middle) the pictures are counted by decoding them once.

Legend: P packets, N frames.
"""

import itertools
import time
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from timesformer_zoo.video import bitstream
from timesformer_zoo.video.container import LARGE, Media, read_error, reason
from timesformer_zoo.video.counted import keep_counted, known_counted
from timesformer_zoo.video.origin import File, name_of, open_file

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

__all__ = ["Entry", "FrameIndex", "build_index", "decode", "pack"]

_MAX_REORDER = 16  # pictures that H.264 and HEVC may hold back to show them in another order than stored

_LONG = 1.0  # seconds; a count that took longer is kept

Times = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Entry:
    """A packet at which a decoder may start."""

    packet: int  # its number in the file
    place: int  # of the first frame that comes out right
    mark: tuple[int | None, int | None, int]  # its times and size, by which it is found again


_FIRST = Entry(0, 0, (None, None, 0))  # where frames were counted: they are decoded from the file's first packet on


@dataclass(frozen=True, eq=False)
class FrameIndex:
    """Of all frames, in the order shown.

    Attributes:
        pts: when each is shown, in the stream's time base, (N,), each another; None: they were counted by decoding.
        times: when each is shown, in seconds after the first, (N,).
        fps: average rate, also where the rate varies; None where it is unknown.
        entries: in ascending order, the first one for the first frame.
        plain: frames can be sought by their number alone, which is how decord does it.
    """

    num_frames: int
    pts: npt.NDArray[np.int64] | None
    times: Times
    fps: float | None
    entries: tuple[Entry, ...]
    plain: bool

    def place(self, pts: int | None) -> int:
        """Of the frame that is shown then; -1: there is none."""
        if self.pts is None or pts is None:
            return -1
        place = int(self.pts.searchsorted(pts))
        return place if place < self.num_frames and self.pts[place] == pts else -1

    def entry(self, place: int) -> Entry:
        """The last one from which a frame comes out right."""
        return self.entries[bisect_right(self.entries, place, key=lambda entry: entry.place) - 1]


def build_index(file: File, *, count: bool = False) -> tuple[FrameIndex, Media | None]:
    """Read the index of a file's video.

    Args:
        file: a video file's path, or where else its bytes come from.
        count: decode every frame once to count them, also where the packets tell.

    Returns:
        The index, and the file, if it is still open.

    Raises:
        VideoReadError: the file can't be read, or has no frame to show.
    """
    index = media = None
    if not count:
        media = Media(file, tables_only=True)
        try:
            index = _from_packets(media)
        finally:
            if index is None or media.hollow:
                media.container.close()
                media = None
    if index is None:
        index = _counted(file)
    if not index.num_frames:
        raise read_error(name_of(file), "it has no frames to show", "check that it plays")
    return index, media


def pack(packet: "Packet[VideoStream]") -> tuple[int | None, int | None, int]:
    """What tells a packet from others of its file."""
    return packet.pts, packet.dts, packet.size


def packets_of(media: Media) -> Iterator["Packet[VideoStream]"]:
    """The video's packets as stored, without the empty one at the end.

    Raises:
        VideoReadError: the file can't be read to its end.
    """
    import av

    total = 0
    try:
        for packet in media.container.demux(media.stream):
            total += packet.size
            if total > 16 * media.size + (1 << 20):  # tables of a damaged file may name the same bytes again and again
                raise read_error(media.path, "it names more data than it has", "it is damaged: download it again")
            if packet.size:
                yield packet
    except (av.FFmpegError, MemoryError, IndexError) as error:  # IndexError: PyAV's, of streams that come up late
        what = f"it can't be read to its end ({reason(error)})"
        raise read_error(media.path, what, "the file is damaged: download it again or re-encode it") from error


def decode(
    media: Media, threads: int, packets: Iterator["Packet[VideoStream]"], *, conceal: bool = False
) -> Iterator["VideoFrame"]:
    """The frames in the order shown.

    Args:
        conceal: what can't be decoded is left out, as FFmpeg's players do; who reads sees by the times what is missing.

    Raises:
        VideoReadError: it can't be decoded.
    """
    import av

    context = media.stream.codec_context
    if not context.is_open:
        context.thread_count = threads
        # What is made of damage would depend on frame threads.
        context.thread_type = "SLICE" if conceal else "AUTO"
        try:
            context.open()
        except (av.FFmpegError, ValueError) as error:
            what = f"its video can't be decoded ({context.name}: {reason(error)})"
            raise read_error(media.path, what, "re-encode it") from error
    for packet in itertools.chain(packets, [None]):
        try:
            frames = context.decode(packet)
        except av.FFmpegError as error:
            if not conceal:
                what = f"a part of its video can't be decoded ({reason(error)})"
                raise read_error(media.path, what, "the file is damaged: download it again or re-encode it") from error
            continue
        yield from frames


def _from_packets(media: Media) -> FrameIndex | None:
    """None: the packets don't tell all."""
    stream, context = media.stream, media.stream.codec_context
    codec = context.codec.canonical_name
    header = context.extradata or b""
    if not bitstream.is_picture_each(codec, header):
        return None
    length = bitstream.length_size(codec, header)
    marks, shown, keys, entries = [], [], [], []
    with open_file(media.file) as file:
        for number, packet in enumerate(packets_of(media)):
            marks.append(pack(packet))
            shown.append(not packet.is_discard)
            if packet.is_keyframe:
                keys.append(number)
                if media.hollow:
                    file.seek(packet.pos or 0)
                    head = file.read(min(packet.size, bitstream.HEAD))
                else:
                    head = bytes(memoryview(packet)[: bitstream.HEAD])
                if bitstream.is_entry(codec, head, length):
                    entries.append(number)
    if any(pts is None for pts, _, _ in marks) or entries[:1] != [0]:
        return None
    pts = np.array([pts for pts, _, _ in marks], np.int64)
    times = np.sort(pts[np.array(shown, bool)])
    if not _plausible(pts, times) or (context.has_b_frames and (np.diff(pts) > 0).all()):
        return None  # AVI has no times; what FFmpeg makes up knows nothing of frames stored in another order than shown
    latest = np.maximum.accumulate(pts)
    clean = [number for number in entries if number == 0 or latest[number - 1] < pts[number]]
    found = tuple(Entry(n, int(np.searchsorted(times, pts[n])), marks[n]) for n in clean)
    seconds: Times = ((times - times[:1]) * float(stream.time_base or 1)).astype(np.float64)
    plain = (
        codec == "h264"
        and context.pix_fmt == "yuv420p"
        and (media.has_tables or media.container.format.name.startswith("matroska"))
        and media.size <= LARGE  # decord reads a file from end to end at opening
        and keys == clean
        and len(times) == len(marks)
        and all(entry.packet == entry.place for entry in found)
        # decord may start with the second of two keys that are decoded before the first frame is shown.
        and all(entry.mark[1] is not None and entry.mark[1] > pts[0] for entry in found[1:])
    )
    return FrameIndex(len(times), times, seconds, _fps(media, seconds), found, plain)


def _plausible(pts: npt.NDArray[np.int64], times: npt.NDArray[np.int64]) -> bool:
    """Whether a decoder can give frames in the order of their times: each has its own, and none waits for long."""
    overtaken = np.arange(len(pts)) - pts.argsort(kind="stable").argsort()
    return bool(pts.min() == pts[0] and (np.diff(times) > 0).all() and overtaken.max() <= _MAX_REORDER)


def _counted(file: File) -> FrameIndex:
    """By decoding, or as that was kept."""
    import av

    decoder = f"PyAV {av.__version__}"
    known = known_counted(file, decoder)
    if known is not None:
        times, fps = known
        return FrameIndex(len(times), None, times, fps, (_FIRST,), False)
    began = time.monotonic()
    with Media(file) as media:
        index = _by_decoding(media)
    if index.num_frames and time.monotonic() - began > _LONG:
        keep_counted(file, decoder, (index.times, index.fps))
    return index


def _by_decoding(media: Media) -> FrameIndex:
    # Streams may begin with what can't be decoded. Where tables name each packet, it would be missing among the frames.
    frames = decode(media, 0, packets_of(media), conceal=not media.has_tables)
    known = np.array([np.nan if frame.time is None else frame.time for frame in frames])
    fps = _fps(media, known)
    if np.isnan(known).any() or (np.diff(known) <= 0).any():
        known = np.arange(len(known)) / (fps or 25)
    return FrameIndex(len(known), None, known - known[:1], fps, (_FIRST,), False)


def _fps(media: Media, times: Times) -> float | None:
    """As the file states it, or as its frames' times show."""
    if media.stream.average_rate:
        return float(media.stream.average_rate)
    span = float(times[-1] - times[0]) if len(times) > 1 else 0.0
    return (len(times) - 1) / span if span > 0 else None
