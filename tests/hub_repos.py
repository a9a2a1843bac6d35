"""What the local Hub of the tests holds: files, repositories and their commits; its errors, and faults on demand."""

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, NamedTuple

LFS_SUFFIXES = (".bin", ".safetensors", ".pt", ".pth", ".pyth", ".ckpt", ".mp4")  # as a new repository's .gitattributes
LFS_SIZE = 10 * 2**20  # bytes; a larger file is LFS whatever its name


def is_lfs(path: str, size: int) -> bool:
    return size > 0 and (path.endswith(LFS_SUFFIXES) or size > LFS_SIZE)


@dataclass(frozen=True)
class Blob:
    """A file's content, held in memory or left on disk; hashed only when asked for, since it can be large."""

    source: bytes | Path

    def open(self) -> BinaryIO:
        return io.BytesIO(self.source) if isinstance(self.source, bytes) else self.source.open("rb")

    @cached_property
    def size(self) -> int:
        return len(self.source) if isinstance(self.source, bytes) else self.source.stat().st_size

    @cached_property
    def sha256(self) -> str:
        digest = hashlib.sha256()
        with self.open() as file:
            while chunk := file.read(2**20):
                digest.update(chunk)
        return digest.hexdigest()

    def etag(self, path: str) -> str:
        if is_lfs(path, self.size):
            return self.sha256
        with self.open() as file:
            return hashlib.sha1(b"blob %d\0" % self.size + file.read()).hexdigest()


@dataclass
class Repo:
    """A model repository: the files of every commit, and the names (`main`, tags) that point at commits.

    Only its owner, the user named before the slash, reads a private one or the files of a gated one, and writes.
    """

    id: str
    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, Blob]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def read(self, path: str, revision: str = "main") -> bytes:
        with self.commits[self.refs.get(revision, revision)][path].open() as file:
            return file.read()

    def commit(self, files: Mapping[str, bytes | Path | Blob | None] | Path, branch: str = "main") -> str:
        """Add, replace or (None) delete files on top of `branch`, or add a folder; returns the new commit hash."""
        if isinstance(files, Path):
            files = {path.relative_to(files).as_posix(): path for path in files.rglob("*") if path.is_file()}
        changed = {path: Blob(source) if isinstance(source, bytes | Path) else source for path, source in files.items()}
        tree = (self.commits[self.refs[branch]] if self.refs else {}) | changed
        oid = hashlib.sha1(f"{self.id} {len(self.commits)}".encode()).hexdigest()
        self.commits[oid] = {path: blob for path, blob in tree.items() if blob is not None}
        self.refs[branch] = oid
        return oid


class HubError(Exception):
    """An answer other than success, in the form the client reads."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        commit: str | None = None,
        retry_after: int | None = None,  # seconds
    ) -> None:
        self.status, self.message = status, message
        headers = {"X-Error-Message": message, "X-Error-Code": code, "X-Repo-Commit": commit}
        headers["Retry-After"] = None if retry_after is None else str(retry_after)
        self.headers = {name: value for name, value in headers.items() if value is not None}


@dataclass
class Fault:
    """What goes wrong, `times` times (math.inf: always), for requests in whose "METHOD /path" `match` is found."""

    match: str  # a regex
    times: float = 1
    error: HubError | None = None  # answered, and nothing done
    silent: bool | None = None  # the connection is accepted, and nothing ever answered
    cut: int | None = None  # the connection is closed after so many bytes of a file sent, or of an upload received
    corrupt: tuple[int, int] | None = None  # a file is sent with its bytes [first, end) inverted, its headers right


class Request(NamedTuple):
    """A request as it came in."""

    method: str
    path: str  # with the query
    headers: dict[str, str]  # names in lower case
