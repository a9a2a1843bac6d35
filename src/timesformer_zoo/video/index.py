"""What a video file says of itself, read without a decoder: whether it is complete, and when its frames are shown.

decord trusts neither; `reader.py` does. Formats: AVI (RIFF), Matroska and WebM (EBML, RFC 8794), MP4 and QuickTime (ISO
14496-12).
"""

import os
import struct
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from timesformer_zoo.errors import VideoReadError

__all__ = ["REWRAP", "Container", "inspect", "read_error"]

REWRAP = "rewrap it without loss (ffmpeg -i FILE -c copy out.mp4) or, failing that, re-encode it"


def read_error(path: str, what: str, advice: str) -> VideoReadError:
    return VideoReadError(f"{path}: {what}; {advice}")


_UNKNOWN = np.zeros(0, np.int64)


class Container(NamedTuple):
    pts: npt.NDArray[np.int64] = _UNKNOWN  # when each frame is shown, in storage order
    dts: npt.NDArray[np.int64] = _UNKNOWN  # when each frame is decoded
    start: int = 0  # frames before this time are hidden by an edit list
    in_order: bool = False  # the format's codecs store frames in the order shown
    timed: bool = True  # the format stores when each frame is shown
    may_start_late: bool = True  # a seek to the first frame goes by decoding times, which could hit a later key frame


def inspect(path: str) -> Container:
    """Refuses what is no complete file. Raises VideoReadError."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            head = file.read(512)
            if not head:
                raise read_error(path, "the file is empty", "download or copy it again")
            if any(head[at : at + 1] == head[at + 188 : at + 189] == b"G" for at in (0, 4)):  # packets start with G
                # decord starts such a file at its second key frame, for want of an index.
                raise read_error(path, "MPEG transport streams can't be read frame by frame", REWRAP)
            try:
                stated, container = _read_container(file, head, size)
            except (struct.error, IndexError, ValueError):
                stated, container = 0, Container()  # an odd header proves nothing: decord will judge
    except FileNotFoundError as error:
        raise read_error(path, "there is no such file", "check the path") from error
    except IsADirectoryError as error:
        raise read_error(path, "this is a folder", "give the path of a video file in it") from error
    except PermissionError as error:
        raise read_error(path, "no permission to read it", "check the file's access rights") from error
    except VideoReadError:
        raise
    except OSError as error:
        raise read_error(path, f"it can't be read ({error.strerror})", "check the disk or the connection") from error
    if stated > size:
        what = f"the file is truncated: it should have at least {stated} bytes and has {size}"
        raise read_error(path, what, "download or copy it again")
    return container


def _read_container(file: BinaryIO, head: bytes, size: int) -> tuple[int, Container]:
    """(the length in bytes that the file should have at least, its timeline)."""
    if head[:4] == b"RIFF":  # AVI; 8: some writers state the whole file's length here, not what follows
        return struct.unpack("<I", head[4:8])[0], Container(may_start_late=False, timed=False)
    if head[:4] == b"\x1a\x45\xdf\xa3":  # EBML: Matroska, WebM. Header element, then the segment, each with its length
        header_size, at = _ebml_length(head, 4)
        segment_size, at = _ebml_length(head, at + header_size + 4)
        return at + segment_size, Container(in_order=b"webm" in head[:64], may_start_late=False)
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):  # MP4, QuickTime
        boxes = list(_boxes(file, 0, size))
        stated = max((end for kind, _, end in boxes if kind in (b"moov", b"mdat", b"moof")), default=0)
        return stated, _mp4_timeline(file, boxes) if stated <= size else Container()
    if head[:4] == b"\0\0\1\xba":  # MPEG program stream: not every frame has a time
        return 0, Container(timed=False)
    return 0, Container()


def _ebml_length(data: bytes, at: int) -> tuple[int, int]:
    """(an EBML length, 0 if it is left open; where the data starts)."""
    width = 9 - data[at].bit_length()  # leading zero bits of the first byte say how many follow
    value = int.from_bytes(data[at : at + width], "big") - (1 << 7 * width)
    return (0 if value == (1 << 7 * width) - 1 else value), at + width


_Box = tuple[bytes, int, int]  # kind, where its content starts, where it ends


def _boxes(file: BinaryIO, at: int, end: int) -> Iterator[_Box]:
    while at + 8 <= end:
        file.seek(at)
        size, kind = struct.unpack(">I4s", file.read(8))
        start = at + 8
        if size == 1:  # a 64-bit size follows
            (size,), start = struct.unpack(">Q", file.read(8)), at + 16
        elif size == 0:  # up to the end
            size = end - at
        if size < start - at:
            return
        yield kind, start, at + size
        at += size


def _mp4_timeline(file: BinaryIO, boxes: list[_Box]) -> Container:
    """The sample times of the only video track, as ISO 14496-12 stores them; nothing if there are several, or none."""

    def find(boxes: Iterable[_Box], *path: bytes) -> list[_Box]:
        for kind in path[:-1]:
            boxes = [inner for box in boxes if box[0] == kind for inner in _boxes(file, *box[1:])]
        return [box for box in boxes if box[0] == path[-1]]

    def table(box: _Box, dtype: str) -> npt.NDArray[Any]:
        """Rows of a box that holds version and flags (4 bytes), a row count (4), then the rows."""
        file.seek(box[1] + 4)
        (count,) = struct.unpack(">I", file.read(4))
        return np.frombuffer(file.read(count * np.dtype(dtype).itemsize), dtype=dtype)

    def handler(track: _Box) -> bytes:
        file.seek(find([track], b"trak", b"mdia", b"hdlr")[0][1] + 8)
        return file.read(4)

    tracks = [track for track in find(boxes, b"moov", b"trak") if handler(track) == b"vide"]
    if len(tracks) != 1:
        return Container()
    samples = (b"trak", b"mdia", b"minf", b"stbl")
    durations = table(find(tracks, *samples, b"stts")[0], ">u4,>u4")
    dts = np.repeat(durations["f1"].astype(np.int64), durations["f0"]).cumsum()
    dts = pts = np.concatenate([[0], dts[:-1]])
    for box in find(tracks, *samples, b"ctts"):  # decoding time -> time shown; absent if frames are stored in order
        offsets = table(box, ">u4,>i4")
        pts = pts + np.repeat(offsets["f1"].astype(np.int64), offsets["f0"])
    starts: list[int] = []
    for box in find(tracks, b"trak", b"edts", b"elst"):
        file.seek(box[1])
        rows = table(box, ">u8,>i8,>i4" if file.read(1) == b"\x01" else ">u4,>i4,>i4")
        starts += [int(start) for start in rows["f1"] if start >= 0]  # -1 is a delay and hides nothing
    return Container(pts, dts, starts[0] if starts else 0) if len(starts) <= 1 else Container()
