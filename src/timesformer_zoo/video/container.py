"""Opening a file by FFmpeg's demuxers (PyAV), after a look at whether it is all there."""

import os
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO

from timesformer_zoo.errors import VideoReadError
from timesformer_zoo.video.origin import File, name_of, open_file

if TYPE_CHECKING:
    from av.container import InputContainer

__all__ = ["LARGE", "Media", "read_error", "reason"]

# A stranger's file is to be a video, not a playlist that names other files.
FORMATS = (
    "mov,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,live_flv,asf,ogg,gif,apng,h264,hevc,av1,obu,ivf,m4v,mjpeg,"
    "mxf,nut,wtv,dv,rm,3gp,swf,yuv4mpegpipe,h263,vc1,dirac,y4m,nsv,wmv,webp_anim"
)
LARGE = 64 << 20  # bytes; of a larger MP4 only the tables are read, not what they point at
FAR = 4 << 20  # bytes; likewise where they come over a network
_BUFFER = 1 << 17  # bytes that FFmpeg asks for at a time where it does not open the file itself


def read_error(path: str, what: str, advice: str) -> VideoReadError:
    return VideoReadError(f"{path}: {what}; {advice}")


class Media:
    """An open file and the best of its video streams, as FFmpeg chooses.

    Args:
        file: its path, or where else its bytes come from.
        tables_only: it is enough to know of packets what tables say of them. Of a large MP4 nothing else is read then,
            and packets have a place, a size and times, but no content.

    Attributes:
        path: of the file, or its name for messages.
        size: of the file, in bytes.
        has_tables: it is an MP4 (or MOV) whose tables, all in one place, tell of all its packets.
        hollow: its packets have no content.

    Raises:
        VideoReadError: missing, forbidden, a folder, empty, truncated, or without a video.
    """

    def __init__(self, file: File, *, tables_only: bool = False) -> None:
        import av

        self.file = file
        self.path = path = name_of(file)
        self.size, self.has_tables = _check_complete(file)
        limit = LARGE if isinstance(file, str) or not file.is_distant else FAR
        self.hollow = tables_only and self.has_tables and self.size > limit
        source: str | BinaryIO | _Hollow
        if self.hollow:
            source = _Hollow(file, self.size)
        else:
            source = os.path.abspath(file) if isinstance(file, str) else open_file(file)  # a:b would be a protocol
        options = {"format_whitelist": FORMATS, "protocol_whitelist": "file"}
        if self.hollow:
            options["fflags"] = "noparse+nofillin"  # a parser would draw its own conclusions from zeros
        advice = "check that it plays, or download it again"
        try:
            container: InputContainer = av.open(
                source, "r", metadata_errors="replace", options=options, buffer_size=_BUFFER
            )
        except VideoReadError:  # of what the bytes come from
            raise
        except (av.FFmpegError, OSError, ValueError, MemoryError) as error:
            raise read_error(path, f"there is no video in it that FFmpeg can read ({reason(error)})", advice) from error
        stream = container.streams.best("video")
        if not isinstance(stream, av.VideoStream) or stream.codec_context is None:
            found = ", ".join(stream.type for stream in container.streams) or "nothing"
            container.close()
            what = f"there is no video in it that FFmpeg can read (it has: {found})"
            raise read_error(path, what, advice)
        if isinstance(source, _Hollow):
            source.is_hollow = True
        self.container = container
        self.stream = stream

    def __enter__(self) -> "Media":
        return self

    def __exit__(self, *_: object) -> None:
        self.container.close()


def reason(error: BaseException) -> str:
    """FFmpeg's, without the path."""
    return str(getattr(error, "strerror", None) or error or type(error).__name__)


class _Hollow:
    """A file whose content reads as zeros, at no cost, once its header has been read."""

    def __init__(self, file: File, size: int) -> None:
        self._file = file
        self._size = size
        self._at = 0
        self.is_hollow = False

    def read(self, count: int) -> bytes:
        count = max(0, min(count, self._size - self._at))
        if self.is_hollow:
            data = bytes(count)
        else:
            with open_file(self._file) as file:  # each time, a few: nobody tells when the last one was
                file.seek(self._at)
                data = file.read(count)
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at


def _check_complete(place: File) -> tuple[int, bool]:
    """`Media.size` and `Media.has_tables`, of a file that is all there.

    Demuxers read what is there of a truncated file and end without a word; but its length is stated in it.
    """
    path = name_of(place)
    try:
        with open_file(place) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            head = file.read(64)
            if not head:
                raise read_error(path, "the file is empty", "download or copy it again")
            try:
                stated, tables = _stated_length(file, head, size)
            except (struct.error, IndexError, ValueError):
                stated, tables = 0, False  # an odd header proves nothing: FFmpeg will judge
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
    return size, tables


def _stated_length(file: BinaryIO, head: bytes, size: int) -> tuple[int, bool]:
    """(the length in bytes that the file should have at least, 0 if unknown; `Media.has_tables`)."""
    if head[:4] == b"RIFF":  # AVI; 8: some writers state the whole file's length here, not what follows
        return struct.unpack("<I", head[4:8])[0], False
    if head[:4] == b"\x1a\x45\xdf\xa3":  # EBML, RFC 8794: Matroska, WebM. A header, then the segment, with its length
        header_size, at = _ebml_length(head, 4)
        segment_size, at = _ebml_length(head, at + header_size + 4)
        return at + segment_size, False
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):  # ISO 14496-12: MP4, QuickTime
        ends = {}
        for kind, start, end in _boxes(file, size):
            ends[kind] = end
            if kind == b"moof":
                _check_runs(file, start, end, size)
        stated = max((ends.get(kind, 0) for kind in (b"moov", b"mdat", b"moof")), default=0)
        return stated, b"moov" in ends and b"moof" not in ends
    return 0, False


def _check_runs(file: BinaryIO, start: int, end: int, size: int) -> None:
    """FFmpeg makes room for as many samples as a fragment states, be it for gigabytes (ISO 14496-12, 8.8.8)."""
    file.seek(start)
    for run in file.read(end - start).split(b"trun")[1:]:
        samples = int.from_bytes(run[4:8], "big")
        if samples > size:
            what = f"a fragment states {samples} samples in a file of {size} bytes"
            raise read_error(file.name, what, "the file is damaged: download it again")


def _ebml_length(data: bytes, at: int) -> tuple[int, int]:
    """(an EBML length, 0 if it is left open; where the data starts)."""
    width = 9 - data[at].bit_length()  # leading zero bits of the first byte say how many follow
    value = int.from_bytes(data[at : at + width], "big") - (1 << 7 * width)
    return (0 if value == (1 << 7 * width) - 1 else value), at + width


def _boxes(file: BinaryIO, size: int) -> Iterator[tuple[bytes, int, int]]:
    """(kind, start, end) of the file's own boxes, not of those inside."""
    at = 0
    while at + 8 <= size:
        file.seek(at)
        length, kind = struct.unpack(">I4s", file.read(8))
        if length == 1:  # a 64-bit length follows
            (length,) = struct.unpack(">Q", file.read(8))
        elif length == 0:  # up to the end
            length = size - at
        if length < 8:
            return
        yield kind, at, at + length
        at += length
