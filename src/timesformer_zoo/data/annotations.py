"""What a data set's reader gets and gives, and the names of splits and classes.

Nothing here knows a data set; `catalogue.py` says what each is made of.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from timesformer_zoo.data.index import VideoIndex
from timesformer_zoo.data.tables import parse_json, read_text
from timesformer_zoo.errors import AnnotationError
from timesformer_zoo.labels import label_set

if TYPE_CHECKING:
    from timesformer_zoo.data.videos import VideoList

__all__ = ["SPLIT_WORDS", "DataSet", "Labels", "Place", "Request", "Row", "class_key", "read_labels", "split_of"]

Labels: TypeAlias = "str | os.PathLike[str] | Sequence[str]"  # class names, as `read_labels` takes them

# What files, folders and columns call a split; those of Hugging Face's videofolder, and Kinetics' "validate".
SPLIT_WORDS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validate", "validation", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
# Beside them in a name these say nothing else: "videos_train", "val_256", "train_set".
_FILLERS = frozenset(("", "clips", "data", "frames", "list", "rawframes", "set", "split", "videos"))


def split_of(name: str) -> str | None:
    """The split that a name means, whatever its case; None if it means none, or more than that."""
    words = set(re.split(r"[^a-z]+", name.lower())) - _FILLERS
    return next((split for split, known in SPLIT_WORDS.items() if len(words) == 1 and words <= set(known)), None)


class Place(NamedTuple):
    """Where a video may be, and which part of it is meant if it is there."""

    name: str
    start: float | None = None
    end: float | None = None


class Row(NamedTuple):
    """One line of an annotation file: the label (a class name or an index), and places in order of preference."""

    label: str | tuple[str, ...] | None  # as it is written; a list of labels; None: the line has none
    places: tuple[Place, ...]
    target: int | None = None  # where the file gives the label's index, too
    record: Mapping[str, Any] = {}  # the whole line by column, where it has columns


@dataclass(frozen=True)
class Request:
    """What a data set's reader gets."""

    root: Path
    split: str
    fold: str | None
    files: tuple[Path, ...]  # the annotation files of the split
    index: VideoIndex  # of the root
    find: Callable[[str], str | None]  # the index's way to find a video: by name or by path
    several: bool = False  # a video may have any number of labels or values
    notes: list[str] = field(default_factory=list)  # what the user should know of how the files were understood


@dataclass(frozen=True)
class DataSet:
    """How a data set says which video has which label."""

    rows: Callable[[Request], Iterator[Row]] | None
    about: str
    splits: tuple[str, ...] = ("train", "val", "test")
    folds: tuple[str, ...] = ()
    # split -> annotation files, one of which must be there; {fold} is filled in, and * is a pattern: all that match.
    files: dict[str, tuple[str, ...]] = field(default_factory=dict)
    labels: str | None = None  # name of the package's label set, unless the user gives one
    classes: Callable[[Request], Sequence[str]] | None = None  # where neither gives class names
    # Instead of `rows`, where the root is no folder of videos: (root, split, labels, task) -> the videos.
    read: Callable[[str, str, Labels | None, str | None], VideoList] | None = None
    window: int | None = None  # read shard by shard, and so many samples shuffled together; None: all
    by_name: bool = False  # a video's name is unique: find it anywhere below the root. Otherwise by its path


def read_labels(source: Labels) -> tuple[str, ...]:
    """Class names, in the order of their indices.

    Args:
        source: the name of a label set of this package ("ucf101"), a sequence of names, or a file: text with one name a
            line, or an index from 0 or 1 before each (UCF101's classInd.txt), or JSON, a list of names, `{name: index}`
            or `{index: name}`.

    Raises:
        ValueError: no such label set.
        AnnotationError: no such file, indices that are not 0, 1, 2, ..., or a name twice.
    """
    if not isinstance(source, (str, os.PathLike)):
        return _unique(tuple(source), "the class names")
    path = Path(source)
    if not path.suffix and not path.is_file():
        return _unique(tuple(label_set(str(source))), str(source))
    text = read_text(path)
    if path.suffix.lower() != ".json":
        return _unique(_names([line.strip() for line in text.split("\n") if line.strip()]), str(path))
    content = parse_json(path, text)
    if isinstance(content, dict):
        expected = {str(i) for i in range(len(content))}
        if content.keys() == expected and not expected & set(map(str, content.values())):
            content = {name: index for index, name in content.items()}  # id2label, as transformers writes it
        by_index = {str(index): str(name) for name, index in content.items()}
        if by_index.keys() != expected:
            raise AnnotationError(f"{path}: expected {{name: index}} with indices 0 to {len(content) - 1}, each once.")
        content = [by_index[str(i)] for i in range(len(content))]
    if not isinstance(content, list):
        raise AnnotationError(f"{path}: expected a list of names or {{name: index}}, got {str(content)[:80]!r}.")
    # Diving-48's vocabulary spells a class as a list of its parts.
    return _unique(tuple("+".join(name) if isinstance(name, list) else str(name) for name in content), str(path))


def _names(lines: list[str]) -> tuple[str, ...]:
    """The lines, or what follows their indices, in the order of these."""
    header = bool(lines) and re.fullmatch(
        r"(?i)(class_?)?(id|index|idx)[\s,;]+(class_?|label_?)?(name|class|label)", lines[0]
    )
    split = [re.fullmatch(r'(\d+)[\s,;:]+"?(.+?)"?', line) for line in lines[1 if header else 0 :]]
    by_index = {int(match[1]): match[2] for match in split if match}
    first = min(by_index, default=0)
    # Each index once and no name twice: "1 finger", "2 fingers", "3 fingers" are names.
    if first > 1 or sorted(by_index) != list(range(first, first + len(split))) or not by_index:
        return tuple(lines)
    names = tuple(by_index[index] for index in sorted(by_index))
    return names if len(set(names)) == len(names) else tuple(lines)


def _unique(names: tuple[str, ...], where: str) -> tuple[str, ...]:
    if len({class_key(name) for name in names}) < len(names):
        twice = sorted({name for name in names if [class_key(n) for n in names].count(class_key(name)) > 1})
        raise AnnotationError(f"{where}: class names must differ; these occur twice: {twice[:5]}")
    return names


def class_key(name: str) -> str:
    """What two spellings of a class name have in common: SSv2's brackets, case, and underscores do not count."""
    return " ".join(name.replace("[", "").replace("]", "").replace("_", " ").lower().split())
