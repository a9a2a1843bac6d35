"""Video data sets: which video has which label, in which split.

    videos = read_videos("ucf101", "UCF-101", split="train", fold="1", annotations="ucfTrainTestlist")
    print(videos.report())

A video that is annotated and not there is listed as missing; it never becomes another one.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from timesformer_zoo.data.annotations import (
    DataSet,
    Place,
    Request,
    Row,
    VideoIndex,
    class_key,
    read_labels,
)
from timesformer_zoo.data.catalogue import DATASETS
from timesformer_zoo.errors import AnnotationError

__all__ = ["DATASETS", "Sample", "VideoList", "read_videos"]

PathLike = str | os.PathLike[str]


class Sample(NamedTuple):
    """One thing to classify: a video, or a part of one."""

    path: str  # of a video file or of a folder of frames
    label: int
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
    note: str = ""  # how the split was made, where no file says so

    def counts(self) -> dict[str, tuple[int, int]]:
        """(found, missing) of each class."""
        found, missing = (Counter(sample.label for sample in group) for group in (self.samples, self.missing))
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
        if self.note:
            lines.append(f"  {self.note}")
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
    request = Request(root, split, fold, files, VideoIndex(root) if entry.by_name else None)
    rows = list(entry.rows(request))
    if labels is not None or entry.labels is not None:
        classes = read_labels(labels if labels is not None else entry.labels or "")
    elif entry.classes is not None:
        classes = read_labels(entry.classes(request))
    else:
        classes = _classes_of(rows)
    if not classes:
        where = ", ".join(map(str, files)) or root
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
    note = entry.note(request) if entry.note else ""
    return VideoList(data, split, fold, classes, tuple(samples), tuple(missing), note)


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


def _classes_of(rows: list[Row]) -> tuple[str, ...]:
    """Without names: as many classes as the largest index needs, or the names that occur, sorted."""
    labels = {row.label for row in rows}
    if labels and all(label.isdecimal() for label in labels):
        return tuple(map(str, range(max(map(int, labels)) + 1)))
    return tuple(sorted(labels))


def _label(label: str, by_key: dict[str, int], classes: Sequence[str], data: str) -> int:
    index = by_key.get(class_key(label))
    if index is None and label.isdecimal():
        index = int(label)
    if index is None or index >= len(classes):
        shown = ", ".join(map(repr, classes[:5])) + (", ..." if len(classes) > 5 else "")
        raise AnnotationError(f"{data}: label {label!r} is none of the {len(classes)} classes {shown}. Check `labels`.")
    return index


def _locate(places: tuple[Place, ...], label: int, request: Request) -> Sample | None:
    for place in places:
        if request.index is not None:
            path = request.index.find(place.name)
        else:
            path = str(request.root / place.name)
            path = path if os.path.exists(path) else None
        if path is not None:
            return Sample(path, label, place.start, place.end)
    return None
