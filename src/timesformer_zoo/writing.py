"""Writing to disk: a file or a set of files is there whole or not at all, and an error says what was needed.

What is written is first under another name beside its place, goes to the disk (fsync), and is then renamed, which a
killed process, or a power failure, leaves either done or not done. The folder goes to the disk too: a rename is an
entry of its folder.
"""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from safetensors import SafetensorError

from timesformer_zoo.errors import TimesformerZooError, WriteError

__all__ = [
    "clear",
    "current",
    "expect_writable",
    "flush",
    "flush_tree",
    "to_json",
    "whole_file",
    "whole_folder",
    "write_json",
    "writing",
]

PathLike = str | os.PathLike[str]

_PARTIAL = ".partial"  # being written, or left by a process that was killed; the next one removes it
_SAVED = ".saved"  # in a folder: files that are whole and count, though not all of them are in their places yet
_CONFIG = "config.json"  # what every loader reads first
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def whole_file(path: PathLike, needed: int | None = None) -> Iterator[Path]:
    """A path to write to; what is there at the end replaces `path`, at once. On an error `path` stays as it was.

    Args:
        path: its folder is made if need be.
        needed: bytes, for the error, where they are known.

    Raises:
        WriteError: it could not be written.
    """
    path = Path(path)
    partial = path.with_name(f"{_PARTIAL}-{path.name}")  # a folder: writers may put files of their own beside theirs
    with writing(path, needed):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove(partial)
        partial.mkdir()
        try:
            yield partial / path.name
            flush(partial / path.name)
            os.replace(partial / path.name, path)
            flush(path.parent)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def whole_folder(folder: PathLike, needed: int | None = None) -> Iterator[Path]:
    """A folder to write files to; at the end they replace those of the same names in `folder`, all of them or none.

    Other files in `folder` are left alone. Several renames can't be one. So the new files are first complete in
    FOLDER/.saved, whose own renaming is the moment from which they count: `current` reads from there. Then they are put
    in place, config.json last and the old one gone first: a loader that knows nothing of this (timm's, transformers')
    finds in between no config.json, never that of one model beside the weights of another. The next save finishes what
    a killed one left.

    Args:
        folder: made if need be.
        needed: bytes, for the error, where they are known.

    Raises:
        WriteError: something could not be written; the old files are there.
    """
    folder = Path(folder)
    partial = folder / _PARTIAL
    with writing(folder, needed):
        folder.mkdir(parents=True, exist_ok=True)
        _put_in_place(folder)
        partial.mkdir()
        try:
            yield partial
            flush_tree(partial)
            partial.rename(folder / _SAVED)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        flush(folder)
        flush(folder.parent)
        _put_in_place(folder)


def current(folder: PathLike, name: str) -> Path:
    """Where the file `name` of a folder that `whole_folder` writes is, whether or not it had time to finish."""
    saved = Path(folder, _SAVED, name)
    return saved if saved.exists() else Path(folder, name)


def write_json(path: PathLike, content: Any, indent: int | None = 1) -> None:
    """Write a JSON file as `whole_file` does."""
    with whole_file(path) as partial:
        partial.write_text(to_json(content, indent) + "\n", encoding="utf-8")


def to_json(content: Any, indent: int | None = None) -> str:
    """Plain values as JSON, non-ASCII text as it is; numbers that JSON does not know, NaN and infinity, are null."""
    content = _finite(content)
    text = json.dumps(content, indent=indent, ensure_ascii=False, allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # a file's name that is no text, which Python reads with surrogates
        return json.dumps(content, indent=indent)
    return text


def _finite(content: Any) -> Any:
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, Mapping):
        return {name: _finite(value) for name, value in content.items()}
    return [_finite(value) for value in content] if isinstance(content, list | tuple) else content


@contextmanager
def writing(path: PathLike, needed: int | None = None) -> Iterator[None]:
    """Around what writes to `path`: a WriteError of one line for what the system, safetensors or torch say.

    Args:
        path: what is written, for the error.
        needed: bytes, for the error, where they are known.
    """
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        if not _of_writing(error, Path(path)):
            raise
        raise WriteError(_explain(Path(path), error, needed)) from error


def clear(folder: PathLike) -> None:
    """Remove what killed processes left of files in a folder where nobody writes now, as the next `whole_file` does."""
    with writing(folder):
        for partial in Path(folder).glob(f"{_PARTIAL}-*"):
            _remove(partial)


def expect_writable(folder: PathLike) -> None:
    """Raise WriteError where the folder, or the one that it would be made in, is read-only; nothing is made yet."""
    path = Path(folder).absolute()
    with writing(path):
        there = next(place for place in (path, *path.parents) if place.exists())
        if not there.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(there))
        TemporaryFile(dir=there).close()


def flush(path: Path) -> None:
    """A file's content, or a folder's entries, to the disk."""
    if os.name == "nt" and path.is_dir():  # Windows can't open a folder, and writes its entries by itself
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def flush_tree(folder: Path) -> None:
    """A folder and all that is in it to the disk."""
    for path in folder.rglob("*"):
        flush(path)
    flush(folder)


def _put_in_place(folder: Path) -> None:
    """Give the files of FOLDER/.saved their places and remove what killed processes left; may itself be cut short."""
    saved, partial = folder / _SAVED, folder / _PARTIAL
    _remove(partial)
    if not saved.is_dir():
        return
    names = sorted(os.listdir(saved), key=lambda name: (name == _CONFIG, name))
    if _CONFIG in names:
        (folder / _CONFIG).unlink(missing_ok=True)
        flush(folder)
    for name in names:
        beside = folder / f"{_PARTIAL}-{name}"
        _remove(beside)
        try:
            os.link(saved / name, beside)
        except OSError:  # a file system without hard links
            shutil.copyfile(saved / name, beside)
            flush(beside)
        os.replace(beside, folder / name)
        beside.unlink(missing_ok=True)  # where both were links to one file, replacing does nothing
        flush(folder)
    saved.rename(partial)  # removing is not done at once, renaming is
    shutil.rmtree(partial)
    flush(folder)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _of_writing(error: OSError | SafetensorError | RuntimeError, path: Path) -> bool:
    """Whether an error is of writing there, and of nothing else that was going on: reading a file elsewhere, say."""
    if isinstance(error, SafetensorError):
        return "I/O error" in str(error)
    if isinstance(error, RuntimeError):  # torch.save's, for whatever keeps it from writing
        return "inline_container" in str(error) or "PytorchStreamWriter" in str(error)
    if isinstance(error, TimesformerZooError) or error.errno is None:
        return False
    if not isinstance(error.filename, str | os.PathLike):
        return True
    path, other = path.absolute(), Path(error.filename).absolute()
    beside = path.with_name(f"{_PARTIAL}-{path.name}")
    return other in path.parents or not {path, beside}.isdisjoint((other, *other.parents))


def _explain(path: Path, error: Exception, needed: int | None) -> str:
    if isinstance(error, OSError):
        full, reason = error.errno in _FULL, error.strerror or str(error)
    else:  # safetensors passes the system's error on as text, torch not even that
        full = isinstance(error, RuntimeError) or any(f"os error {code})" in str(error) for code in _FULL)
        reason = str(error).removeprefix("Error while serializing: I/O error: ").splitlines()[0]
    if not full:
        return f"{path} could not be written: {reason}; choose a folder that can be written to"
    there = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())
    space = f"{_size(shutil.disk_usage(there).free)} are free there"
    space += f", it needs {_size(needed)}" if needed else ""
    return f"{path} could not be written: {reason} ({space}); free some, or choose another folder"


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
