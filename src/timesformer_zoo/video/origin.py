"""Where a video's bytes come from: a path, bytes, a file object, an address, a member of a shard.

A file of this machine stays a path, which native code opens by itself. All else is an `Origin`: bytes by offset, with a
name for messages.
"""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol, TypeAlias, cast, runtime_checkable

from timesformer_zoo.errors import VideoReadError

__all__ = ["Content", "File", "Origin", "Readable", "file_facts", "is_one", "name_of", "open_file", "origin_of"]


@runtime_checkable
class Origin(Protocol):
    """Bytes that are no file of this machine."""

    @property
    def name(self) -> str:
        """As messages and results call it: without a password or token."""

    @property
    def is_distant(self) -> bool:
        """Each byte comes over a network."""

    @property
    def size(self) -> int:
        """In bytes. Raises VideoReadError."""

    def read_at(self, offset: int, count: int) -> bytes:
        """As many bytes as asked for, or up to the end. Raises VideoReadError."""

    def close(self) -> None:
        """Free what is held open; who reads on opens it again."""


File: TypeAlias = str | Origin  # a path, or what is read by our own hands
Readable: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Origin


def is_one(videos: object) -> bool:
    """Whether this is one video, not several: bytes and files can be iterated, too."""
    simple = (str, os.PathLike, bytes, bytearray, memoryview)
    return isinstance(videos, simple) or hasattr(videos, "read") or isinstance(videos, Origin)


def origin_of(video: Readable) -> File:
    """What a user means by a video.

    Raises:
        TypeError: neither a path or an address, nor bytes, nor a binary file object that can seek.
        VideoReadError: a shard that can't be read, or has no such member.
    """
    if isinstance(video, (bytes, bytearray, memoryview)):
        return Content(bytes(video))
    if isinstance(video, Origin):
        return video
    if hasattr(video, "read"):
        return _FileObject(cast(BinaryIO, video))
    if not isinstance(video, (str, os.PathLike)):
        what = "a path, an address, bytes or a binary file object"
        raise TypeError(f"expected {what} for a video, got {type(video).__name__}")
    from timesformer_zoo.video.remote import Address, is_address
    from timesformer_zoo.video.shards import find_member, is_member

    path = os.fsdecode(video)
    if is_member(path):
        return find_member(path)
    return Address(path) if is_address(path) else path


def file_facts(place: str) -> list[tuple[str, int, int]]:
    """What changes when a video does: name, size and time of change (ns) of its file, or of each file of its folder.

    Of a member of a shard, the shard's. Of an address, and of what is not there, nothing.
    """
    from timesformer_zoo.video.shards import is_member

    file = place.rpartition("::")[0] if is_member(place) else place
    try:
        files = sorted(os.scandir(file), key=lambda entry: entry.name) if os.path.isdir(file) else [Path(file)]
        stats = [(entry.name, entry.stat()) for entry in files]
    except OSError:
        return []
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]


def name_of(file: File) -> str:
    return file if isinstance(file, str) else file.name


def open_file(file: File) -> BinaryIO:
    """Raises OSError; of an `Origin`, when it is read, VideoReadError."""
    return open(file, "rb") if isinstance(file, str) else cast(BinaryIO, _Reader(file))


class Content:
    """Bytes in memory."""

    is_distant = False

    def __init__(self, data: bytes, name: str | None = None) -> None:
        self.name = name or f"<{len(data)} bytes>"
        self.size = len(data)
        self._data = data

    def read_at(self, offset: int, count: int) -> bytes:
        return self._data[offset : offset + count]

    def close(self) -> None:
        """Nothing is open."""


class _FileObject:
    """A file that the user has opened, and will close. Its position is left where it was."""

    is_distant = False

    def __init__(self, file: BinaryIO) -> None:
        self.name = str(getattr(file, "name", None) or f"<{type(file).__name__}>")
        self._file = file
        seekable = getattr(file, "seekable", None)
        if isinstance(file, io.TextIOBase) or seekable is None or not seekable():
            raise TypeError(
                f"{self.name}: a video's file object must be binary and able to seek; open it with 'rb', or give bytes"
            )
        with self._elsewhere(0, os.SEEK_END) as end:
            self.size = end.tell()

    def read_at(self, offset: int, count: int) -> bytes:
        with self._elsewhere(offset, os.SEEK_SET) as file:
            return _read_all(file, count)

    @contextmanager
    def _elsewhere(self, offset: int, whence: int) -> Iterator[BinaryIO]:
        try:
            before = self._file.tell()
            self._file.seek(offset, whence)
            yield self._file
            self._file.seek(before)
        except (OSError, ValueError) as error:  # ValueError: it is closed
            raise VideoReadError(f"{self.name}: it can't be read ({error}); open it again") from error

    def close(self) -> None:
        """It is the user's to close."""


def _read_all(file: BinaryIO, count: int) -> bytes:
    """An unbuffered file may give less than asked for, before its end."""
    parts = []
    while count and (part := file.read(count)):
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


class _Reader(io.RawIOBase):
    """An `Origin` as a file, with a position of its own."""

    def __init__(self, origin: Origin) -> None:
        self._origin, self._size, self._position = origin, origin.size, 0
        self.name = origin.name

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, count: int = -1, /) -> bytes:
        rest = max(0, self._size - self._position)
        data = self._origin.read_at(self._position, rest if count < 0 else min(count, rest)) if rest else b""
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        self._position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        return self._position

    def tell(self) -> int:
        return self._position
