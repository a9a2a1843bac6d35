"""How annotation files are read: tables, lists of paths and labels, class names, and where the videos are.

Nothing here knows a data set; `catalogue.py` says which of these a data set is made of.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from timesformer_zoo.errors import AnnotationError
from timesformer_zoo.labels import label_set
from timesformer_zoo.video.folder import IMAGE_SUFFIXES

__all__ = [
    "VIDEO_SUFFIXES",
    "DataSet",
    "Place",
    "Request",
    "Row",
    "VideoIndex",
    "class_key",
    "read_labels",
    "read_list",
    "read_records",
]

VIDEO_SUFFIXES = frozenset(
    (".3gp", ".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".webm", ".wmv")
)


class Place(NamedTuple):
    """Where a video may be, and which part of it is meant if it is there."""

    name: str
    start: float | None = None
    end: float | None = None


class Row(NamedTuple):
    """One line of an annotation file: the label (a class name or an index), and places in order of preference."""

    label: str
    places: tuple[Place, ...]


@dataclass(frozen=True)
class Request:
    """What a data set's reader gets."""

    root: Path
    split: str
    fold: str | None
    files: tuple[Path, ...]  # the annotation files of the split
    index: VideoIndex | None  # of the root, for data sets whose videos are found by name


@dataclass(frozen=True)
class DataSet:
    """How a data set says which video has which label."""

    rows: Callable[[Request], Iterator[Row]]
    about: str
    splits: tuple[str, ...] = ("train", "val", "test")
    folds: tuple[str, ...] = ()
    # split -> annotation files, one of which must be there; {fold} is filled in, and * is a pattern: all that match.
    files: dict[str, tuple[str, ...]] = field(default_factory=dict)
    labels: str | None = None  # name of the package's label set, unless the user gives one
    classes: Callable[[Request], Sequence[str]] | None = None  # where neither gives class names
    by_name: bool = False  # a video's name is unique: find it anywhere below the root. Otherwise by its path
    note: Callable[[Request], str] | None = None


def read_labels(source: str | os.PathLike[str] | Sequence[str]) -> tuple[str, ...]:
    """Class names, in the order of their indices.

    Args:
        source: the name of a label set of this package ("ucf101"), a sequence of names, or a file: text with one name a
            line, or JSON, a list of names or `{name: index}`.

    Raises:
        ValueError: no such label set.
        AnnotationError: no such file, indices that are not 0, 1, 2, ..., or a name twice.
    """
    if not isinstance(source, (str, os.PathLike)):
        return _unique(tuple(source), "the class names")
    path = Path(source)
    if not path.suffix:
        return _unique(tuple(label_set(str(source))), str(source))
    text = _read_text(path)
    if path.suffix != ".json":
        return _unique(tuple(line.strip() for line in text.splitlines() if line.strip()), str(path))
    content = _parse_json(path, text)
    if isinstance(content, dict):
        by_index = {str(index): str(name) for name, index in content.items()}
        expected = [str(i) for i in range(len(content))]
        if by_index.keys() != set(expected):
            raise AnnotationError(f"{path}: expected {{name: index}} with indices 0 to {len(content) - 1}, each once.")
        content = [by_index[index] for index in expected]
    # Diving-48's vocabulary spells a class as a list of its parts.
    return _unique(tuple("+".join(name) if isinstance(name, list) else str(name) for name in content), str(path))


def _unique(names: tuple[str, ...], where: str) -> tuple[str, ...]:
    if len({class_key(name) for name in names}) < len(names):
        twice = sorted({name for name in names if [class_key(n) for n in names].count(class_key(name)) > 1})
        raise AnnotationError(f"{where}: class names must differ; these occur twice: {twice[:5]}")
    return names


def class_key(name: str) -> str:
    """What two spellings of a class name have in common: SSv2's brackets, case, and underscores do not count."""
    return " ".join(name.replace("[", "").replace("]", "").replace("_", " ").lower().split())


def read_records(path: Path) -> list[dict[str, Any]]:
    """Rows of a table by column name: CSV or TSV with a header, JSON (objects in a list, or by id), JSON lines.

    A column "id" is added where JSON has the id as key.

    Raises:
        AnnotationError: the file cannot be read as such.
    """
    text = _read_text(path)
    if path.suffix == ".jsonl":
        content: Any = [_parse_json(path, line) for line in text.splitlines() if line.strip()]
    elif path.suffix == ".json":
        content = _parse_json(path, text)
    else:
        lines = text.splitlines()
        content = list(csv.DictReader(lines, delimiter=max(",\t;", key=lines[0].count) if lines else ","))
    if isinstance(content, dict):
        content = [{"id": key, **value} for key, value in content.items() if isinstance(value, dict)]
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise AnnotationError(f"{path}: expected a list of objects, or an object of objects.")
    return content


def read_list(path: Path) -> list[tuple[str, str]]:
    """(path, label) of each line of a list without header, in the official layout: `path label`, or with a comma.

    The label is what follows the last separator, so paths may hold spaces. Lines that are empty or start with # are not
    counted.

    Raises:
        AnnotationError: lines that do not split into two.
    """
    lines = [line.strip() for line in _read_text(path).splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    splits = {d: [[part.strip() for part in line.rsplit(d, 1)] for line in lines] for d in (",", "\t", ";", " ")}
    whole = {d: rows for d, rows in splits.items() if all(len(row) == 2 and all(row) for row in rows)}
    # Indices first: "a, b.mp4 3" has a comma, too. Names may hold spaces, so a space separates only indices.
    for rows in whole.values():
        if all(label.isdecimal() for _, label in rows):
            return [(name, label) for name, label in rows]
    whole.pop(" ", None)
    for rows in whole.values():
        return [(name, label) for name, label in rows]
    odd = next((line for line in lines if len(line.rsplit(" ", 1)) < 2), lines[0])
    raise AnnotationError(
        f"{path}: expected 'path label' on each line, with an index as label, or 'path,label' with an index or a class "
        f"name; got for instance {odd!r}."
    )


def _read_text(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except OSError as error:
        raise AnnotationError(f"{path}: cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise AnnotationError(f"{path}: not UTF-8 text ({error}).") from error


def _parse_json(path: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise AnnotationError(f"{path}: not JSON ({error}).") from error


class VideoIndex:
    """All videos below a folder, by name: files with a video's suffix, and folders of frames.

    A folder whose first file is a picture is a folder of frames.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.paths = sorted(_walk(root))
        self._by_stem: dict[str, list[str]] = {}
        for path in self.paths:
            self._by_stem.setdefault(video_stem(path), []).append(path)

    def find(self, name: str) -> str | None:
        """The video called `name`, wherever below the root and with whatever suffix; None if there is none.

        Raises:
            AnnotationError: several, and the folder in `name` does not tell them apart.
        """
        found = self._by_stem.get(video_stem(name), [])
        if len(found) > 1:
            parent = os.path.basename(os.path.dirname(name))
            found = [path for path in found if os.path.basename(os.path.dirname(path)) == parent] or found
        if len(found) > 1:
            raise AnnotationError(f"{name!r} could be any of {found[:3]}. Keep one, or give a narrower folder.")
        return found[0] if found else None


def video_stem(path: str) -> str:
    """A video's file name without folder, and without suffix if that is a video's (names may hold dots)."""
    stem, suffix = os.path.splitext(os.path.basename(path))
    return stem if suffix.lower() in VIDEO_SUFFIXES else stem + suffix


def _walk(folder: Path | str) -> Iterator[str]:
    folders = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                folders.append(entry.path)
            elif os.path.splitext(entry.name)[1].lower() in VIDEO_SUFFIXES:
                yield entry.path
    for path in folders:
        if is_frame_folder(path):
            yield path
        else:
            yield from _walk(path)


def is_frame_folder(path: str) -> bool:
    """Whether a folder holds the frames of a video: the first of its entries that is no hidden file is a picture."""
    with os.scandir(path) as entries:
        first = next((entry for entry in entries if not entry.name.startswith(".")), None)
        return first is not None and first.is_file() and os.path.splitext(first.name)[1].lower() in IMAGE_SUFFIXES
