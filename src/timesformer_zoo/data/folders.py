"""The data set that is a folder per class: which folders are splits, which are classes, and what is in none."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from timesformer_zoo.data.annotations import SPLIT_WORDS, Place, Request, Row, split_of
from timesformer_zoo.data.index import VideoIndex, has_video_suffix, holds_videos, video_stem
from timesformer_zoo.errors import AnnotationError
from timesformer_zoo.words import counted

__all__ = ["folder_classes", "folder_rows"]


class _Layout(NamedTuple):
    splits: dict[str, Path]  # none: `classes` are in the root itself
    classes: list[Path]  # of the split asked for


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _split_folders(root: Path) -> dict[str, Path]:
    """The folders that are called as splits, unless they hold videos as class folders do.

    Raises:
        AnnotationError: two folders for one split, or one that is half a class.
    """
    found: dict[str, Path] = {}
    folders = _folders(root)
    named = {folder: split for folder in folders if (split := split_of(folder.name))}
    flat = [folder for folder in named if holds_videos(str(folder))]
    if flat and flat == list(named) and len(named) < len(folders):
        return {}  # beside other classes: "bus", "car", "train"
    if flat:
        raise AnnotationError(
            f"{root}: folder {flat[0].name!r} is called as a split and holds videos; expected class folders in it."
        )
    for folder, split in named.items():
        if split in found:
            raise AnnotationError(
                f"{root}: folders {found[split].name!r} and {folder.name!r} both mean {split}; expected one; rename or "
                f"join them."
            )
        found[split] = folder
    return found


def _layout(request: Request) -> _Layout:
    root, split = request.root, request.split
    splits = _split_folders(root)
    if splits and split not in splits:
        have = ", ".join(repr(folder.name) for folder in splits.values())
        raise AnnotationError(
            f"{root} has folders of splits ({have}), but none for {split!r}; expected one called "
            f"{' or '.join(SPLIT_WORDS[split])}."
        )
    if not splits and split == "test":
        raise AnnotationError(f"{root} has no folder 'test'; without split folders there are train and val.")
    classes = _folders(splits[split] if splits else root)
    if not splits and len(classes) == 1 and _split_folders(classes[0]):
        raise AnnotationError(f"{root}: its only folder holds folders of splits; give {classes[0]} as the root.")
    return _Layout(splits, classes)


def folder_classes(request: Request) -> list[str]:
    """Of all splits together, so that a class's index is the same in each."""
    splits = _layout(request).splits
    return sorted({folder.name for root in splits.values() or [request.root] for folder in _folders(root)})


def folder_rows(request: Request) -> Iterator[Row]:
    """Raises AnnotationError if there is no such split, or a class folder without a video, as torchvision does."""
    splits, classes = _layout(request)
    _note(request, splits)
    for folder in classes:
        paths = VideoIndex(folder).paths
        if not paths:
            raise AnnotationError(
                f"{folder}: no video in this class folder, only {_content(folder)}; expected video files or folders of "
                f"frames; fill it or remove it."
            )
        if not splits:  # a fifth, but at least one of two, is for validation
            shuffled = sorted(paths, key=lambda path: hashlib.sha1(video_stem(path).encode()).digest())
            held_out = round(len(paths) / 5) or min(1, len(paths) // 2)
            paths = sorted(shuffled[:held_out] if request.split == "val" else shuffled[held_out:])
        for path in paths:
            yield Row(folder.name, (Place(os.path.relpath(path, str(request.root))),))


def _content(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir())
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "") if names else "nothing"


def _note(request: Request, splits: dict[str, Path]) -> None:
    """What is there and not read."""
    if not splits:
        request.notes.append(
            "no train and val folders: a fifth of each class, chosen by a hash of the file names, is for validation"
        )
    elif beside := [folder.name for folder in _folders(request.root) if folder not in splits.values()]:
        request.notes.append(f"beside the folders of splits, and not read: {', '.join(beside[:5])}")
    for folder in {request.root, splits.get(request.split, request.root)}:
        if loose := sorted(path.name for path in folder.iterdir() if has_video_suffix(path.name) and path.is_file()):
            number = counted(len(loose), "videos")
            request.notes.append(f"{number} in no class folder, and not read: {folder / loose[0]} …")
