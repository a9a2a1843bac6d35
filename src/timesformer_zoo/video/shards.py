"""Members of tar files, which WebDataset calls shards: where each lies, listed once, and read by range.

A member is named by its shard and its own name, "clips-000003.tar::00042.mp4"; the shard is a path or an address. Lists
of members are kept in a cache folder, under the shard's name, size and date or hash.
"""

import hashlib
import json
import os
import re
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from timesformer_zoo.errors import VideoReadError
from timesformer_zoo.video.cache import cache_folder, keep
from timesformer_zoo.video.origin import File, name_of, open_file
from timesformer_zoo.video.remote import Address, is_address, masked

__all__ = ["Extent", "Shard", "find_member", "is_member", "read_shard"]

TEXTS = frozenset((".cls", ".json", ".txt"))  # members with what a sample is called, kept with the list
_LONGEST = 1 << 16  # bytes of such a member
_LARGE = 1 << 25  # bytes; a larger member behind an address is read by blocks
_SEPARATOR = "::"


class Extent(NamedTuple):
    """Of a member in its shard, in bytes."""

    offset: int
    size: int


@dataclass(frozen=True)
class Shard:
    """What is in a shard, in its order."""

    path: str
    members: dict[str, Extent]
    texts: dict[str, str] = field(default_factory=dict)  # content of the short members that are text
    is_kept: bool = True  # the list is in the cache


class Member:
    """An `Origin`: a part of a file."""

    def __init__(self, path: str, extent: Extent) -> None:
        shard = path.rpartition(_SEPARATOR)[0]
        self.name = masked(path)
        self.is_distant = is_address(shard)
        self.size = extent.size
        self._shard = shard if self.is_distant else os.path.abspath(shard)
        self._offset = extent.offset
        self._address: Address | None = None
        self._content: bytes | None = None

    def read_at(self, offset: int, count: int) -> bytes:
        count = max(0, min(count, self.size - offset))
        if not self.is_distant:
            try:
                with open(self._shard, "rb") as file:
                    file.seek(self._offset + offset)
                    return file.read(count)
            except OSError as error:
                what = f"{self.name}: its shard can't be read ({error.strerror})"
                raise VideoReadError(f"{what}; check the path") from error
        if self._address is None:
            self._address = Address(self._shard)
        if self.size > _LARGE:
            return self._address.read_at(self._offset + offset, count)
        if self._content is None:
            self._content = self._address.read_range(self._offset, self.size)
        return self._content[offset : offset + count]

    def close(self) -> None:
        if self._address is not None:
            self._address.close()
        self._address = self._content = None


def is_member(path: str) -> bool:
    shard, separator, name = path.rpartition(_SEPARATOR)
    is_tar = bool(separator and name) and re.search(r"\.tar(\?[^:]*)?$", shard) is not None
    return is_tar and not os.path.exists(path)


def find_member(path: str) -> Member:
    """Raises VideoReadError: no such shard, or nothing of that name in it."""
    shard, _, name = path.rpartition(_SEPARATOR)
    extent = read_shard(shard, again=not is_address(shard)).members.get(name)
    if extent is None:
        raise VideoReadError(f"{masked(shard)}: there is no {name} in it; check the name")
    return Member(path, extent)


_known: dict[str, tuple[str, Shard]] = {}  # shard -> its stamp and list; what a process forks into has them


def read_shard(path: str, *, again: bool = True) -> Shard:
    """The list of a shard's members: from memory, from the cache, or from the shard, whose headers are read for it.

    Args:
        again: look whether the shard is another one by now; False: not, if this process knows it.

    Raises:
        VideoReadError: it can't be read, or is no tar file, or a compressed one.
    """
    if not again and path in _known:
        return _known[path][1]
    stamp, file = _stamp(path)
    if path not in _known or _known[path][0] != stamp:
        kept = cache_folder() / "shards" / f"{hashlib.sha256(f'{path} {stamp}'.encode()).hexdigest()[:32]}.json"
        shard = _from_cache(path, kept)
        if shard is None:
            members, texts = _listed(file)
            shard = Shard(path, members, texts, _keep(kept, members, texts))
        _known[path] = stamp, shard
    return _known[path][1]


def _stamp(path: str) -> tuple[str, File]:
    """What changes with the shard's content."""
    if is_address(path):
        address = Address(path)
        info = address.info
        # As stores call it: HTTP and S3, Google's, the Hub's, others.
        known = ("ETag", "etag", "md5Hash", "blob_id", "lfs", "mtime", "LastModified", "last_modified", "created")
        return repr([address.size, *(str(info[key]) for key in known if info.get(key))]), address
    try:
        status = os.stat(path)
    except OSError as error:
        raise VideoReadError(f"{path}: it can't be read ({error.strerror}); check the path") from error
    return repr([status.st_size, status.st_mtime_ns]), path


def _listed(file: File) -> tuple[dict[str, Extent], dict[str, str]]:
    members: dict[str, Extent] = {}
    texts = {}
    name = name_of(file)
    try:
        with open_file(file) as source, tarfile.open(fileobj=source, mode="r:") as tar:
            for member in tar:
                if not member.isreg():
                    continue
                if member.name in members:
                    raise VideoReadError(f"{name}: it has two members {member.name}; expected each name once")
                members[member.name] = Extent(member.offset_data, member.size)
                if os.path.splitext(member.name)[1].lower() in TEXTS and member.size <= _LONGEST:
                    content = tar.extractfile(member)
                    texts[member.name] = content.read().decode("utf-8", "replace") if content else ""
    except VideoReadError:
        raise
    except (tarfile.TarError, OSError, EOFError) as error:
        what = f"{name}: it can't be read as a tar file ({error})"
        raise VideoReadError(f"{what}; a shard must be whole and not compressed: check it, or unzip it") from error
    finally:
        if not isinstance(file, str):
            file.close()
    return members, texts


def _from_cache(path: str, kept: Path) -> Shard | None:
    try:
        content: dict[str, Any] = json.loads(kept.read_text("utf-8"))
        return Shard(path, {name: Extent(*extent) for name, *extent in content["members"]}, content["texts"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _keep(kept: Path, members: dict[str, Extent], texts: dict[str, str]) -> bool:
    """Whether the list could be written."""
    content = {"members": [[name, *extent] for name, extent in members.items()], "texts": texts}
    return keep(kept, json.dumps(content).encode())
