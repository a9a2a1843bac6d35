"""Video data sets: which video has which label, in which split.

    videos = read_videos("ucf101", "UCF-101", split="train", fold="1", annotations="ucfTrainTestlist")
    print(videos.report())

A video that is annotated and not there is listed as missing; it never becomes another one. What could be understood in
several ways is an error, or a line of the report.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from timesformer_zoo.data.annotations import DataSet, Place, Request, Row, class_key, read_labels, split_of
from timesformer_zoo.data.catalogue import DATASETS
from timesformer_zoo.data.index import VideoIndex
from timesformer_zoo.errors import AnnotationError

__all__ = ["DATASETS", "Sample", "VideoList", "read_videos"]

PathLike = str | os.PathLike[str]

_MOST_CLASSES = 100_000  # more indices than that are ids


class Sample(NamedTuple):
    """One thing to classify: a video, or a part of one."""

    path: str  # of a video file or of a folder of frames
    target: int  # index of its class
    start: float | None = None  # s; None: from the beginning
    end: float | None = None  # s; None: to the end


@dataclass(frozen=True)
class VideoList:
    """The videos of a split, what is missing, and the names of the classes."""

    name: str
    split: str
    fold: str | None
    classes: tuple[str, ...]
    samples: tuple[Sample, ...]  # found
    missing: tuple[Sample, ...] = ()  # annotated, but no such file; `path` as it was looked for
    notes: tuple[str, ...] = ()  # how files were understood, where that may surprise
    task: str = "classes"  # kind of target, as `ClipSpec.task`: "classes", "multilabel" or "regression"

    def counts(self) -> dict[str, tuple[int, int]]:
        """(found, missing) of each class."""
        found, missing = (Counter(sample.target for sample in group) for group in (self.samples, self.missing))
        return {name: (found[i], missing[i]) for i, name in enumerate(self.classes)}

    def report(self, per_class: bool | None = None) -> str:
        """What was found, in text.

        Args:
            per_class: a line for each class; None: where there are at most 20, and for those with none or some missing
                otherwise.
        """
        title = f"{self.name} {self.split}" + (f", fold {self.fold}" if self.fold else "")
        total = len(self.samples) + len(self.missing)
        lines = [f"{title}: {total} videos in {len(self.classes)} classes, {len(self.samples)} found"]
        lines[0] += f", {len(self.missing)} missing" if self.missing else ""
        lines += [f"  {note}" for note in self.notes]
        counts = self.counts()
        if per_class is None:
            per_class = len(counts) <= 20
        sizes = sorted(found for found, _ in counts.values())
        lines.append(f"  videos in a class: {sizes[0]} to {sizes[-1]}, median {sizes[len(sizes) // 2]}")
        for name, (found, missing) in counts.items():
            if per_class or missing or not found:
                lines.append(f"  {found:6} {name}" + (f" ({missing} missing)" if missing else ""))
        lines += [f"  missing: {sample.path}" for sample in self.missing[:5]]
        if len(self.missing) > 5:
            lines.append(f"  missing: {len(self.missing) - 5} more")
        return "\n".join(lines)


def read_videos(
    data: str,
    root: PathLike,
    split: str = "train",
    *,
    fold: str | int | None = None,
    annotations: PathLike | None = None,
    labels: PathLike | Sequence[str] | None = None,
) -> VideoList:
    """The videos of a split of a data set.

    Args:
        data: a name in `DATASETS`.
        root: folder of the videos.
        split: one of the data set's, mostly "train", "val" and "test".
        fold: where the data set has several ways to split it: one of its `folds`; None: the first.
        annotations: annotation file, or the folder that holds the files named as published. None: looked for in `root`,
            `root/annotations` and `root/labels`.
        labels: class names, as `read_labels` takes them; None: the data set's own.

    Raises:
        AnnotationError: unknown data set, split, fold or class; annotation files missing or unreadable.
    """
    entry = _choose(DATASETS, data, "data set")
    _choose(dict.fromkeys(entry.splits), split, f"split of {data}")
    if fold is not None or entry.folds:
        fold = entry.folds[0] if fold is None else str(fold)
        _choose(dict.fromkeys(entry.folds), fold, f"fold of {data}")
    root = Path(root)
    if not root.is_dir():
        raise AnnotationError(f"{root}: no such folder; expected the folder of the videos of {data}.")
    files = _find_files(entry, root, annotations, split, fold)
    index = VideoIndex(root)
    request = Request(root, split, fold, files, index, index.find if entry.by_name else index.at)
    rows = list(entry.rows(request))
    if annotations is not None and split_of(Path(annotations).stem) not in (None, split):
        request.notes.append(f"{Path(annotations).name} was given, and is taken, for the split {split}")
    # pandas writes whole numbers with a point where a column has gaps
    rows = [row._replace(label=re.sub(r"^(\d+)\.0+$", r"\1", row.label)) for row in rows]
    where = ", ".join(map(str, files)) or str(root)
    if labels is not None or entry.labels is not None:
        classes = read_labels(labels if labels is not None else entry.labels or "")
    elif entry.classes is not None:
        classes = read_labels(entry.classes(request))
    else:
        classes = _classes_of(rows, where)
    if not classes:
        raise AnnotationError(f"{where}: no classes of {data} {split} there; expected {entry.about}.")
    by_key = {class_key(name): i for i, name in enumerate(classes)}
    samples, missing = [], []
    for row in rows:
        label = _label(row.label, by_key, classes, data)
        found = _locate(row.places, label, request)
        if found is not None:
            samples.append(found)
        else:
            missing.append(Sample(row.places[0].name, label, *row.places[0][1:]))
    return VideoList(data, split, fold, classes, tuple(samples), tuple(missing), tuple(dict.fromkeys(request.notes)))


def _choose(known: dict[str, Any], name: str, what: str) -> Any:
    if name not in known:
        have = ", ".join(known) or "none"
        raise AnnotationError(f"Unknown {what}: {name!r}. Choose from: {have}.")
    return known[name]


def _find_files(
    entry: DataSet, root: Path, annotations: PathLike | None, split: str, fold: str | None
) -> tuple[Path, ...]:
    if not entry.files or (annotations is not None and Path(annotations).is_file()):
        return (Path(annotations),) if annotations is not None else ()
    names = [name.format(fold=fold) for name in entry.files[split]]
    folders = [root, root / "annotations", root / "labels"] if annotations is None else [Path(annotations)]
    for folder in folders:
        for name in names:
            if found := sorted(folder.glob(name)):
                return tuple(found)
    where = ", ".join(map(str, folders))
    raise AnnotationError(f"No {' or '.join(names)} in {where}. Say where it is with `annotations` (a file or folder).")


def _classes_of(rows: list[Row], where: str) -> tuple[str, ...]:
    """Without names: those that occur, by the indices beside them or sorted, or as many as the largest index needs."""
    labels = {row.label for row in rows}
    if labels and all(label.isdecimal() for label in labels):
        return tuple(map(str, range(_count(max(map(int, labels)), where))))
    if any(re.fullmatch(r"-\d+", label) for label in labels):
        raise AnnotationError(f"{where}: there are labels below 0; expected indices from 0, or class names.")
    if any(row.target is None for row in rows):
        return tuple(sorted(labels))
    names: dict[int, str] = {}
    for row in rows:
        if row.target is not None and names.setdefault(row.target, row.label) != row.label:
            raise AnnotationError(
                f"{where}: index {row.target} is {names[row.target]!r} and {row.label!r}; expected one."
            )
    return tuple(names.get(i, f"class {i}") for i in range(_count(max(names, default=-1), where)))


def _count(largest: int, where: str) -> int:
    if largest >= _MOST_CLASSES:
        raise AnnotationError(
            f"{where}: a label is {largest}, expected indices from 0; if they are ids, list `labels`."
        )
    return largest + 1


def _label(label: str, by_key: dict[str, int], classes: Sequence[str], data: str) -> int:
    index = by_key.get(class_key(label))
    if index is None and label.isdecimal():
        index = int(label)
    if index is None or index >= len(classes):
        shown = ", ".join(map(repr, classes[:5])) + (", ..." if len(classes) > 5 else "")
        raise AnnotationError(
            f"{data}: label {label!r} is none of the {len(classes)} classes {shown}. Check `labels`"
            + (", and whether indices start at 0." if index == len(classes) else ".")
        )
    return index


def _locate(places: tuple[Place, ...], label: int, request: Request) -> Sample | None:
    for place in places:
        if (path := request.find(place.name)) is not None:
            return Sample(path, label, place.start, place.end)
    return None
