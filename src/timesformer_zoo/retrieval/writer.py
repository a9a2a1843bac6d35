"""Videos into a library: one is done once, and anew when its file has changed; a killed run loses seconds."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from timesformer_zoo.engine.results import expect_settings, locked
from timesformer_zoo.engine.work import key_of, named
from timesformer_zoo.retrieval.parts import (
    Manifest,
    Part,
    VideoRows,
    read_manifest,
    read_part,
    write_manifest,
    write_part,
)
from timesformer_zoo.video.origin import file_facts
from timesformer_zoo.writing import clear, writing

__all__ = ["LibraryWriter", "version_of"]

_ROWS = 1 << 16  # of a part that is full, and does not change any more unless one of its videos does
_SECONDS = 20.0  # between two writes: what a killed run loses


def version_of(path: str) -> str:
    """Of a video's file as it is now, by size and time of change; "" where neither is known, as of an address."""
    facts = file_facts(path)
    return hashlib.blake2b(repr(facts).encode(), digest_size=8).hexdigest() if facts else ""


class LibraryWriter:
    """One run's hold on a library.

    Args:
        folder: made if need be.
        model: its name, by which a query's model is loaded.
        settings: which all its runs have in common; "width" is the number of features.
        about: plain values that are kept beside the settings.
        retry_errors: forget the videos that could not be read.

    Attributes:
        videos, changed: how many were there before, and of these the ones that are done anew.

    Raises:
        OutputError: another run writes there, it is of other settings, or damaged.
        WriteError: it can't be written to.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        model: str | None,
        settings: Mapping[str, Any],
        about: Mapping[str, Any],
        *,
        retry_errors: bool = False,
    ) -> None:
        self._folder = Path(folder)
        with writing(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            self._lock = locked(self._folder)
        try:
            clear(self._folder)
            self._settings, self._about = dict(settings), dict(about)
            before = read_manifest(self._folder)
            if before is not None:
                expect_settings(self._folder, before.settings, self._settings)
            self._model = model or (before.model if before else None)
            names = before.parts if before else []
            # A part that somebody has removed, since it was damaged, is forgotten: its videos are done anew.
            self._parts = {name: self._read(name) for name in names if (self._folder / name).exists()}
            self._known = {
                key_of(about): about["version"]
                for part in self._parts.values()
                for about in part.videos
                if not (retry_errors and "error" in about)
            }
            self._claimed: dict[str, str] = {}
            self._waiting: list[VideoRows] = []
            self._since = time.monotonic()
            self.videos, self.changed = len(self._known), 0
            self._publish(list(self._parts))
        except BaseException:
            self._lock.close()
            raise

    def __enter__(self) -> LibraryWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.write()
            self._merge()
        finally:
            self._lock.close()

    @property
    def rows(self) -> int:
        """That are on the disk."""
        return sum(len(part.features) for part in self._parts.values())

    def claim(self, path: str) -> bool:
        """Whether a video is to be done: it is not there as it is now, nor was it claimed before."""
        key = key_of(named(path))
        if key in self._claimed:
            return False
        version = version_of(path)
        if self._known.get(key) == version:
            return False
        self.changed += key in self._known
        self._claimed[key] = version
        return True

    def add(self, video: VideoRows) -> None:
        """A claimed one's. It is on the disk within `_SECONDS` of the next one's, and at the end.

        Raises:
            WriteError: the disk is full; what was written before is there.
        """
        version = self._claimed[key_of(video.about)]
        self._waiting.append(VideoRows({**video.about, "version": version}, video.times, video.features))
        if sum(len(video.features) for video in self._waiting) >= _ROWS or time.monotonic() - self._since > _SECONDS:
            self.write()

    def write(self) -> None:
        """What was added since the last time; rows of the same videos as they were before go at once."""
        if self._waiting:
            anew = {key_of(video.about) for video in self._waiting}
            kept = {}
            for name, part in self._parts.items():
                if anew.isdisjoint(map(key_of, part.videos)):
                    kept[name] = part
                elif left := [video for video in part.rows() if key_of(video.about) not in anew]:
                    kept |= self._written(left)
            kept |= self._written(self._waiting)
            self._publish(list(kept))
            self._parts, self._waiting = kept, []
        self._since = time.monotonic()

    def _merge(self) -> None:
        """Small parts become full ones, their videos by name: so the library is the same whatever runs were killed."""
        small = {name: part for name, part in self._parts.items() if len(part.features) < _ROWS}
        videos = sorted((video for part in small.values() for video in part.rows()), key=lambda v: key_of(v.about))
        merged: dict[str, Part] = {}
        group: list[VideoRows] = []
        for i, video in enumerate(videos):
            group.append(video)
            if sum(len(one.features) for one in group) >= _ROWS or i == len(videos) - 1:
                merged |= self._written(group)
                group = []
        if set(merged) != set(small):
            kept = {name: part for name, part in self._parts.items() if name not in small} | merged
            self._publish(list(kept))
            self._parts = kept

    def _written(self, videos: list[VideoRows]) -> dict[str, Part]:
        name = write_part(self._folder, videos, {"model": self._model, **self._about, "settings": self._settings})
        return {name: self._read(name)}

    def _read(self, name: str) -> Part:
        return read_part(self._folder / name, self._settings["width"])

    def _publish(self, names: list[str]) -> None:
        """From now on these parts are the library; files of others go."""
        write_manifest(self._folder, Manifest(self._model, self._settings, self._about, names))
        with writing(self._folder):
            for path in self._folder.glob("part-*.safetensors"):
                if path.name not in names:
                    with suppress(PermissionError):  # Windows, while it is mapped; the next run removes it
                        path.unlink()
