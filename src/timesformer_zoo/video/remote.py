"""Videos behind an address, through fsspec: https://, hf://, s3://, gs://, memory:// and whatever else it knows.

Bytes are asked for by range, so that of a large MP4 only its tables and the parts that hold the wanted frames cross the
network. Messages show an address without what may be secret in it.
"""

import io
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

from timesformer_zoo.errors import TimesformerZooError, VideoReadError

__all__ = [
    "BLOCK",
    "WHOLE",
    "Address",
    "as_path",
    "asking",
    "files_below",
    "is_address",
    "is_folder",
    "masked",
    "matching",
    "names_in",
    "shown",
    "without_login",
]

BLOCK = 1 << 17  # bytes; a larger file is read in blocks of this size …
WHOLE = 1 << 22  # … unless it is no larger than this: then one request brings all of it
_KEPT = 128  # blocks of an open file that stay in memory, 32 MB
_PAUSES = (0.5, 2.0)  # seconds before a request that failed is made again

_LOGIN = re.compile(r"(?<=://)[^/]*@")  # user and password of an address

T = TypeVar("T")


def is_address(name: str) -> bool:
    """scheme://…, which no path of this machine is; or a chain of fsspec's, such as simplecache::https://…"""
    return re.match(r"([a-z]+::)*[a-zA-Z][a-zA-Z0-9+.-]+://", name) is not None


def shown(text: str) -> str:
    """A text in which addresses are without user, password and query, where tokens and signatures stand."""
    return re.sub(r"[a-zA-Z][a-zA-Z0-9+.-]+://[^\s'\"]+", _shown, text)


def masked(name: str) -> str:
    """As `shown`, of what is one video's name as a whole: an address may have spaces in it."""
    return _masked(name) if is_address(name) else name


def _shown(address: re.Match[str]) -> str:
    return _masked(address[0])


def _masked(address: str) -> str:
    parts = [_LOGIN.sub("***@", part) for part in address.split("::")]
    return "::".join(re.sub(r"\?.*", "?…", part) for part in parts)


def without_login(address: str) -> str:
    """Without user and password: they say who reads, not what."""
    return _LOGIN.sub("", address)


class Address:
    """An `Origin` that fsspec opens.

    Where the server gives no ranges, or no length, the file is downloaded to a temporary one.
    """

    is_distant = True

    def __init__(self, address: str) -> None:
        self.name = masked(address)
        self._address = address
        self._file: BinaryIO | None = None
        self._info: dict[str, Any] | None = None

    def __reduce__(self) -> tuple[type["Address"], tuple[str]]:
        return Address, (self._address,)  # connections stay in the process that made them

    @property
    def size(self) -> int:
        size = self.info.get("size")
        if size is None:
            size = self._opened().seek(0, os.SEEK_END)
        return int(size)

    @property
    def info(self) -> dict[str, Any]:
        """What fsspec says of it: its size, and whatever tells one version from another."""
        if self._info is None:
            self._info = self.ask(lambda fs, path: fs.info(path))
            if self._info.get("type") == "directory":
                raise VideoReadError(f"{self.name}: this is a folder; give the address of a video file in it")
        return self._info

    def read_at(self, offset: int, count: int) -> bytes:
        def read(fs: Any, path: str) -> bytes:
            file = self._opened()
            file.seek(offset)
            return file.read(count)

        return self.ask(read)

    def read_range(self, offset: int, count: int) -> bytes:
        """As `read_at`, by one request and without asking anything before. All of `count` must be there."""
        data = self.ask(lambda fs, path: cast(bytes, fs.cat_file(path, start=offset, end=offset + count)))
        if len(data) != count:
            what = f"{self.name}: asked for {count} bytes of it, the server gave {len(data)}"
            raise VideoReadError(f"{what}; take one that answers range requests, or download the file")
        return data

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = None

    def _opened(self) -> BinaryIO:
        if self._file is None:
            size = self.info.get("size")
            if size is None or not self.info.get("partial", True):
                self._file = self.ask(_downloaded)
            elif size <= WHOLE:
                self._file = io.BytesIO(self.ask(lambda fs, path: fs.cat_file(path)))
            else:
                options = dict(block_size=BLOCK, cache_type="blockcache", cache_options={"maxblocks": _KEPT})
                self._file = self.ask(lambda fs, path: cast(BinaryIO, fs.open(path, "rb", **options)))
        return self._file

    def ask(self, request: Callable[[Any, str], T]) -> T:
        """What a request (file system, path in it) gives; it is made again where that may help.

        Raises:
            VideoReadError: it fails.
            ModuleNotFoundError: fsspec needs a package for this scheme.
        """
        for pause in (*_PAUSES, None):
            try:
                return request(*_file_system(self._address))
            except VideoReadError:
                raise
            except Exception as raised:  # of the scheme's own client: aiohttp, httpx, botocore …
                error = _unwrapped(raised)
                if pause is None or _is_final(error):
                    # The cause would be printed, with the address in it.
                    raise _error(self._address, error) from (error if self.name == self._address else None)
                self.close()
                time.sleep(pause)
        raise AssertionError


def as_path(place: str | os.PathLike[str]) -> Path:
    """A pathlib path, of an address one that behaves like it."""
    if not isinstance(place, str) or not is_address(place):
        return Path(place)
    with asking(place):
        from upath import UPath

        return cast(Path, UPath(place))


def is_folder(address: str) -> bool:
    """Raises VideoReadError: nobody answers."""
    return Address(address).ask(lambda fs, path: bool(fs.isdir(path)))


def files_below(folder: str) -> list[str]:
    """The addresses of all files below that of a folder, by one listing. Raises VideoReadError."""

    def listed(fs: Any, path: str) -> list[str]:
        return [name[len(path) :].lstrip("/") for name in fs.find(path)]

    return [f"{folder.rstrip('/')}/{name}" for name in Address(folder).ask(listed)]


def matching(pattern: str) -> list[str]:
    """The addresses that fit a pattern with *. Raises VideoReadError."""
    return Address(pattern).ask(lambda fs, path: sorted(map(fs.unstrip_protocol, fs.glob(path))))


def names_in(folder: str) -> list[str]:
    """What is in the address of a folder. Raises VideoReadError."""
    found = Address(folder).ask(lambda fs, path: fs.ls(path, detail=False))
    return [str(name).rstrip("/").rpartition("/")[2] for name in found]


@contextmanager
def asking(address: str) -> Iterator[None]:
    """What fails inside is said of the address, without what may be secret in it. A path's errors stay as they are."""
    if not is_address(address):
        yield
        return
    try:
        yield
    except TimesformerZooError as ours:
        if (text := shown(str(ours).replace(address, masked(address)))) != str(ours):
            raise type(ours)(text) from None
        raise
    except Exception as raised:
        error = _unwrapped(raised)
        raise _error(address, error) from (error if masked(address) == address else None)


def _error(address: str, error: Exception) -> VideoReadError | ModuleNotFoundError:
    scheme, name = address.partition("://")[0], masked(address)
    reason = _reason(error, address)
    if isinstance(error, ImportError):
        what = f"{name}: {scheme}:// needs another package ({reason})"
        return ModuleNotFoundError(f"{what}; pip install 'timesformer-zoo[remote]', or what is named", name="aiohttp")
    if isinstance(error, FileNotFoundError):
        what, advice = "there is no such file", "check the address, and whether it needs a login"
    elif isinstance(error, PermissionError) or _status(error) in (401, 403):
        what, advice = f"no permission to read it ({reason})", "log in, or check the token's rights"
    elif isinstance(error, ValueError) and "rotocol not known" in str(error):
        what, advice = f"fsspec knows no {scheme}://", "check the address"
    else:
        what, advice = f"it can't be read ({reason})", "check the connection, and try again later"
    return VideoReadError(f"{name}: {what}; {advice}")


def _file_system(address: str) -> tuple[Any, str]:
    """fsspec's, and the path in it. It keeps one for each process and place, so nothing is kept here."""
    from fsspec.core import url_to_fs

    return cast(tuple[Any, str], url_to_fs(address))


def _downloaded(fs: Any, path: str) -> BinaryIO:
    file = tempfile.TemporaryFile()  # noqa: SIM115  # it is gone when it is closed, by `close`
    try:
        with fs.open(path, "rb", block_size=0) as source:
            while chunk := source.read(1 << 20):
                file.write(chunk)
    except BaseException:
        file.close()
        raise
    return cast(BinaryIO, file)


def _unwrapped(error: Exception) -> Exception:
    """fsspec says FileNotFoundError of whatever happens while it asks for a size; its cause is what it was."""
    cause = error.__cause__
    hides = isinstance(error, FileNotFoundError) and isinstance(cause, Exception) and _status(cause) not in (404, 410)
    return cause if hides and isinstance(cause, Exception) else error


def _status(error: Exception) -> int | None:
    """HTTP's, whatever client says it."""
    response = getattr(error, "response", None)
    for place in (error, response):
        status = getattr(place, "status", None) or getattr(place, "status_code", None)
        if isinstance(status, int):
            return status
    return None


def _is_final(error: Exception) -> bool:
    """Whether the same request would fail again."""
    status = _status(error)
    if status is not None:
        return 400 <= status < 500 and status not in (408, 429)
    return isinstance(error, (FileNotFoundError, PermissionError, ImportError, TypeError, ValueError))


def _reason(error: Exception, address: str) -> str:
    text = shown(str(error).replace(address, masked(address))).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
