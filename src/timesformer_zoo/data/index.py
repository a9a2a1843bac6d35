"""Which files and folders are videos, and where the one is that an annotation file names."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from timesformer_zoo.errors import AnnotationError
from timesformer_zoo.video.folder import IMAGE_SUFFIXES
from timesformer_zoo.video.remote import files_below, is_address, names_in
from timesformer_zoo.video.shards import is_member

__all__ = [
    "VIDEO_SUFFIXES",
    "VideoIndex",
    "has_video_suffix",
    "holds_videos",
    "is_elsewhere",
    "is_frame_folder",
    "video_stem",
]

VIDEO_SUFFIXES = frozenset(
    (
        *(".3gp", ".asf", ".avi", ".f4v", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts"),
        *(".ogv", ".ts", ".vob", ".webm", ".wmv"),
    )
)


class VideoIndex:
    """All videos below a folder: files with a video's suffix, and folders of frames. It is walked when first asked.

    Behind an address, no folder is taken for one of frames.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @cached_property
    def paths(self) -> list[str]:
        """Raises AnnotationError where a folder can't be listed, or may be a video or a folder of videos."""
        if is_address(str(self.root)):
            return sorted(path for path in files_below(str(self.root)) if has_video_suffix(path))
        try:
            return sorted(_walk(str(self.root)))
        except OSError as error:
            raise AnnotationError(f"{error.filename}: cannot be listed ({error.strerror}); check the path.") from error

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        by_stem: dict[str, list[str]] = {}
        for path in self.paths:
            by_stem.setdefault(_key(path), []).append(path)
        return by_stem

    @cached_property
    def _there(self) -> frozenset[str]:
        return frozenset(self.paths)

    def find(self, name: str) -> str | None:
        """The video called `name`, wherever below the root and with whatever suffix; None if there is none.

        Raises:
            AnnotationError: several, and the folder in `name` does not tell them apart.
        """
        name = name.replace("\\", "/")
        found = self._by_stem.get(_key(name), [])
        if len(found) > 1:
            parent = os.path.basename(os.path.dirname(name))
            found = [path for path in found if os.path.basename(os.path.dirname(path)) == parent] or found
        return _only(name, found)

    def at(self, name: str) -> str | None:
        """The video at the path `name`, from the root unless it is absolute; None if there is none.

        The path may be of Windows, or of a file system that spells accents in two characters (macOS). If it ends in no
        video's suffix it may be a mere id: then the video has any suffix, and without a folder in it is looked for
        everywhere.

        An address, or a member of a shard, is taken at its word.

        Raises:
            AnnotationError: several videos have that id.
        """
        if is_elsewhere(name):
            return name
        slashed = name.replace("\\", "/")
        for spelling in dict.fromkeys(
            [name, slashed, unicodedata.normalize("NFC", slashed), unicodedata.normalize("NFD", slashed)]
        ):
            path = str(self.root / spelling)
            if path in self._there if is_address(path) else os.path.exists(path):
                return path
        if has_video_suffix(slashed):
            return None
        found = self._by_stem.get(_key(slashed), [])
        folder = os.path.dirname(str(self.root / slashed))
        here = [path for path in found if os.path.dirname(path) == folder]
        return _only(name, here or ([] if "/" in slashed else found))


def _only(name: str, found: list[str]) -> str | None:
    if len(found) > 1:
        raise AnnotationError(f"{name!r} could be any of {found[:3]}. Keep one, or give a narrower folder.")
    return found[0] if found else None


def is_elsewhere(name: str) -> bool:
    """Whether this is an address, or a member of a shard; blanks in an address stand before its suffix, if at all."""
    return (is_address(name) and (has_video_suffix(name) or not re.search(r"\s", name))) or is_member(name)


def has_video_suffix(name: str) -> bool:
    name = name.partition("?")[0] if is_address(name) else name
    return os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES


def video_stem(path: str) -> str:
    """A video's file name without folder, and without suffix if that is a video's (names may hold dots)."""
    name = os.path.basename(path)
    return os.path.splitext(name)[0] if has_video_suffix(name) else name


def _key(path: str) -> str:
    return unicodedata.normalize("NFC", video_stem(path))


def _walk(folder: str) -> Iterator[str]:
    folders = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                if not entry.is_symlink() or not _is_within(folder, entry.path):  # a link to a parent is a circle
                    folders.append(entry.path)
            elif has_video_suffix(entry.name):
                yield entry.path
    for path in folders:
        if is_frame_folder(path):
            yield path
        else:
            yield from _walk(path)


def _is_within(inner: str, outer: str) -> bool:
    return (os.path.realpath(inner) + os.sep).startswith(os.path.realpath(outer) + os.sep)


def holds_videos(folder: str) -> bool:
    """Whether a video lies in the folder itself, as a file or as a folder of frames."""
    if is_address(folder):
        return any(map(has_video_suffix, names_in(folder)))
    with os.scandir(folder) as entries:
        shown = [entry for entry in entries if not entry.name.startswith(".")]
    return any(is_frame_folder(e.path) if e.is_dir() else has_video_suffix(e.name) for e in shown)


def is_frame_folder(path: str) -> bool:
    """Whether a folder holds the frames of a video: pictures and, but for hidden ones, no video.

    Raises:
        AnnotationError: pictures, and folders that hold videos.
    """
    pictures, folders = False, []
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                folders.append(entry.path)
            elif has_video_suffix(entry.name):
                return False
            else:
                pictures |= os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES
    if pictures and (inner := next((folder for folder in folders if any(_walk_self(folder))), None)):
        raise AnnotationError(
            f"{path}: it holds pictures, as a folder of frames does, and videos in {os.path.basename(inner)}; "
            f"expected one of the two; move the other."
        )
    return pictures


def _walk_self(folder: str) -> Iterator[str]:
    """As `_walk`, or the folder itself."""
    yield from [folder] if is_frame_folder(folder) else _walk(folder)
