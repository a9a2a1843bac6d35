"""A folder of rows that many runs may fill, one at a time: each row is in it once, whenever a run is killed.

`part-00000.jsonl` and so on are whole and do not change again. New rows are appended to the next one under another
name, `part-00007.jsonl.partial`, which is renamed when it is full or the run ends. A killed run leaves that one, at
most with half a line at its end, which the next run cuts off. `settings.json` says what the rows are of.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from timesformer_zoo.engine.work import Row, key_of, named
from timesformer_zoo.errors import OutputError
from timesformer_zoo.writing import clear, flush, to_json, whole_file, write_json, writing

__all__ = ["ResultFolder", "expect_settings", "keys_of_errors", "locked"]

_ROWS = 10_000  # of a part: a thousand files for ten million videos
_PARTIAL = ".partial"
_SETTINGS = "settings.json"
_LOCK = ".lock"


class ResultFolder:
    """One run's hold on a folder of rows.

    Args:
        folder: made if need be.
        settings: plain values for JSON, which all its runs have in common.
        retry_errors: forget the rows with an error.

    Raises:
        OutputError: another run has it, it is of other settings, or a part of it is damaged.
        WriteError: it can't be written to.
    """

    def __init__(
        self, folder: str | os.PathLike[str], settings: Mapping[str, Any], *, retry_errors: bool = False
    ) -> None:
        self._folder = Path(folder)
        self._is_new = not self._folder.exists()
        with writing(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            self._lock = locked(self._folder)
        try:
            clear(self._folder)
            self._settings = json.loads(to_json(settings))
            self._expect(self._settings)
            for partial in self._folder.glob(f"part-*.jsonl{_PARTIAL}"):
                with writing(partial):
                    _cut(partial)
                    _publish(partial)
            parts = sorted(self._folder.glob("part-*.jsonl"))
            if retry_errors:
                for part in parts:
                    _remove_errors(part)
            self._known = {key_of(row) for part in parts for row in _rows(part)}
            self._number = max(map(_number, parts), default=-1) + 1
            self._file: IO[bytes] | None = None
            self._count = 0
        except BaseException:
            self._leave()
            raise

    def __enter__(self) -> ResultFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._end_part()
        finally:
            self._leave()

    def _leave(self) -> None:
        """A folder that is this run's, and without a row, goes: the run was refused."""
        self._lock.close()
        if self._is_new and os.listdir(self._folder) == [_LOCK]:
            with suppress(OSError):  # another run has come
                (self._folder / _LOCK).unlink()
                self._folder.rmdir()

    def claim(self, path: str) -> bool:
        """Whether a video is to be done: it is neither in the folder, nor was it claimed before."""
        key = key_of(named(path))
        if key in self._known:
            return False
        self._known.add(key)
        return True

    def add(self, row: Row) -> None:
        """A claimed video's. When this returns the system has it, whatever becomes of this process.

        Raises:
            WriteError: the disk is full; what was added before is there.
        """
        with writing(self._folder):
            if self._file is None:
                if not (self._folder / _SETTINGS).exists():
                    write_json(self._folder / _SETTINGS, self._settings)
                self._file = open(self._folder / f"part-{self._number:05}.jsonl{_PARTIAL}", "xb")  # noqa: SIM115
            self._file.write(_line(row))
            self._file.flush()
        self._count += 1
        if self._count == _ROWS:
            self._end_part()

    def _end_part(self) -> None:
        if self._file is not None:
            with writing(self._folder):
                self._file.close()
                _publish(Path(self._file.name))
            self._file, self._number, self._count = None, self._number + 1, 0

    def _expect(self, settings: dict[str, Any]) -> None:
        """Of the rows in the folder, if there are any."""
        path = self._folder / _SETTINGS
        if not path.exists():
            if any(self._folder.glob("part-*")):
                raise OutputError(
                    f"{self._folder} has rows and no settings.json, which says of what; choose another folder"
                )
            return
        try:
            before = dict(json.loads(path.read_text("utf-8")))
        except (ValueError, TypeError) as error:
            raise OutputError(
                f"{path} is damaged ({error}), so of what the rows are is unknown; choose another folder"
            ) from None
        expect_settings(self._folder, before, settings)


def keys_of_errors(folder: str | os.PathLike[str]) -> set[str]:
    """Of the videos that a folder has an error of, as `key_of` gives them; none if there is no such folder yet."""
    found: set[str] = set()
    for part in Path(folder).glob("part-*"):
        with part.open("rb") as file:
            rows = (json.loads(line) for line in file if b'"error": ' in line and _is_row(line))
            found.update(key_of(row) for row in rows if "error" in row)
    return found


def expect_settings(folder: Path, before: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Raise OutputError, which names what differs, unless rows of these settings may join those of a folder."""
    differ = [
        f"{name} {before.get(name)!r}, not {settings.get(name)!r}"
        for name in sorted({*before, *settings})
        if before.get(name) != settings.get(name)
    ]
    if differ:
        raise OutputError(f"{folder} holds rows of other settings: {', '.join(differ)}; choose another folder")


def locked(folder: Path) -> IO[bytes]:
    """A file whose lock the system frees when this process ends, however it ends."""
    file = open(folder / _LOCK, "ab")  # noqa: SIM115
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        else:
            import fcntl

            with suppress(NotImplementedError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        what = "another run writes there" if isinstance(error, (BlockingIOError, PermissionError)) else error.strerror
        raise OutputError(f"{folder} could not be locked: {what}; wait for it, or choose another folder") from None
    return file


def _line(row: Row) -> bytes:
    return to_json(row).encode() + b"\n"


def _number(part: Path) -> int:
    try:
        return int(part.stem.removeprefix("part-"))
    except ValueError:
        raise OutputError(
            f"{part} is not of this program, which writes part-00000.jsonl and so on; move it away"
        ) from None


def _rows(part: Path) -> Iterator[Row]:
    with part.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                row = json.loads(line)
                row["path"]
            except (ValueError, KeyError, TypeError):
                raise OutputError(
                    f"{part}: line {number} is no row of this program's ({line[:40]!r}); remove the file, "
                    "and its videos are done again"
                ) from None
            yield row


def _cut(partial: Path) -> None:
    """Take off what a killed run, or a power failure, left behind the last whole row."""
    whole = 0
    with partial.open("rb+") as file:
        for line in file:
            if not (line.endswith(b"\n") and _is_row(line)):
                break
            whole += len(line)
        file.truncate(whole)


def _is_row(line: bytes) -> bool:
    try:
        return "path" in json.loads(line)
    except (ValueError, TypeError):
        return False


def _remove_errors(part: Path) -> None:
    rows = list(_rows(part))
    kept = [row for row in rows if "error" not in row]
    if len(kept) < len(rows):
        with whole_file(part) as new:
            new.write_bytes(b"".join(map(_line, kept)))


def _publish(partial: Path) -> None:
    """Its last suffix goes when its content is on the disk."""
    flush(partial)
    os.replace(partial, partial.with_suffix(""))
    flush(partial.parent)
