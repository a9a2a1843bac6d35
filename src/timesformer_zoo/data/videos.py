"""Video data sets: which video has which label, in which split.

    videos = read_videos("ucf101", "UCF-101", split="train", fold="1", annotations="ucfTrainTestlist")
    print(videos.report())

A video that is annotated and not there is listed as missing; it never becomes another one. What could be understood in
several ways is an error, or a line of the report.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from timesformer_zoo.data.annotations import DataSet, Place, Request, Row, read_labels, split_of
from timesformer_zoo.data.catalogue import DATASETS
from timesformer_zoo.data.index import VideoIndex
from timesformer_zoo.data.targets import TASKS, Target, understand
from timesformer_zoo.errors import AnnotationError

__all__ = ["DATASETS", "TASKS", "Sample", "Target", "VideoList", "read_videos"]

PathLike = str | os.PathLike[str]


class Sample(NamedTuple):
    """One thing to classify: a video, or a part of one."""

    path: str  # of a video file or of a folder of frames
    target: Target  # index of its class; or those of its labels, in order; or its values
    start: float | None = None  # s; None: from the beginning
    end: float | None = None  # s; None: to the end


@dataclass(frozen=True)
class VideoList:
    """The videos of a split, what is missing, and the names of the classes."""

    name: str
    split: str
    fold: str | None
    classes: tuple[str, ...]  # or the names of the values
    samples: tuple[Sample, ...]  # found
    missing: tuple[Sample, ...] = ()  # annotated, but no such file; `path` as it was looked for
    notes: tuple[str, ...] = ()  # how files were understood, where that may surprise
    task: str = "classes"  # kind of target, as `ClipSpec.task`: one of `TASKS`

    @property
    def things(self) -> str:
        """What `classes` are, in a word: classes, labels or values."""
        return TASKS[self.task].things

    def label(self, sample: Sample) -> Any:
        """A sample's target by name: its class, the tuple of its labels, or a dict of its values."""
        return TASKS[self.task].label(sample.target, self.classes)

    def counts(self) -> dict[str, tuple[int, int]]:
        """(found, missing) of each class or label; of values nothing can be counted."""
        if self.task == "regression":
            return {}
        found, missing = (
            Counter(
                i for sample in group for i in (sample.target if isinstance(sample.target, tuple) else (sample.target,))
            )
            for group in (self.samples, self.missing)
        )
        return {name: (found[i], missing[i]) for i, name in enumerate(self.classes)}

    def report(self, per_class: bool | None = None) -> str:
        """What was found, in text.

        Args:
            per_class: a line for each class; None: where there are at most 20, and for those with none or some missing
                otherwise.
        """
        title = f"{self.name} {self.split}" + (f", fold {self.fold}" if self.fold else "")
        total = len(self.samples) + len(self.missing)
        lines = [f"{title}: {total} videos in {len(self.classes)} {self.things}, {len(self.samples)} found"]
        lines[0] += f", {len(self.missing)} missing" if self.missing else ""
        lines += [f"  {note}" for note in self.notes]
        lines += self._spread() if self.task == "regression" else self._sizes(per_class)
        lines += [f"  missing: {sample.path}" for sample in self.missing[:5]]
        if len(self.missing) > 5:
            lines.append(f"  missing: {len(self.missing) - 5} more")
        return "\n".join(lines)

    def _sizes(self, per_class: bool | None) -> list[str]:
        counts = self.counts()
        if per_class is None:
            per_class = len(counts) <= 20
        sizes = sorted(found for found, _ in counts.values())
        of = "in a class" if self.task == "classes" else "with a label"
        lines = [f"  videos {of}: {sizes[0]} to {sizes[-1]}, median {sizes[len(sizes) // 2]}"]
        if without := sum(sample.target == () for sample in self.samples):
            lines.append(f"  {without} videos without any label")
        for name, (found, missing) in counts.items():
            if per_class or missing or not found:
                lines.append(f"  {found:6} {name}" + (f" ({missing} missing)" if missing else ""))
        return lines

    def _spread(self) -> list[str]:
        lines = []
        for i, name in enumerate(self.classes if self.samples else ()):
            values = [sample.target[i] for sample in self.samples if isinstance(sample.target, tuple)]
            lines.append(f"  {name}: {min(values):g} to {max(values):g}, median {median(values):g}")
        return lines


def read_videos(
    data: str,
    root: PathLike,
    split: str = "train",
    *,
    fold: str | int | None = None,
    annotations: PathLike | None = None,
    labels: PathLike | Sequence[str] | None = None,
    task: str | None = None,
) -> VideoList:
    """The videos of a split of a data set.

    Args:
        data: a name in `DATASETS`.
        root: folder of the videos.
        split: one of the data set's, mostly "train", "val" and "test".
        fold: where the data set has several ways to split it: one of its `folds`; None: the first.
        annotations: annotation file, or the folder that holds the files named as published. None: looked for in `root`,
            `root/annotations` and `root/labels`.
        labels: class names, as `read_labels` takes them; None: the data set's own. Of a table with a column for each
            label or value, the names of those to take.
        task: kind of target, one of `TASKS`; None: as the list says, which a line of the report tells.

    Raises:
        AnnotationError: unknown data set, split, fold, task or class; annotation files missing or unreadable; a list
            that can be meant in two ways.
    """
    if task is not None:
        _choose(TASKS, task, "task")
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
    several = task in ("multilabel", "regression")
    request = Request(root, split, fold, files, index, index.find if entry.by_name else index.at, several)
    rows = list(entry.rows(request))
    if annotations is not None and split_of(Path(annotations).stem) not in (None, split):
        request.notes.append(f"{Path(annotations).name} was given, and is taken, for the split {split}")
    if labels is None:
        labels = entry.labels if entry.labels is not None else entry.classes(request) if entry.classes else None
    where = ", ".join(map(str, files)) or str(root)
    videos = video_list(rows, data, split, request.find, labels=labels, task=task, where=where, expected=entry.about)
    return replace(videos, fold=fold, notes=tuple(dict.fromkeys((*request.notes, *videos.notes))))


def video_list(
    rows: Sequence[Row],
    name: str,
    split: str,
    find: Callable[[str], str | None],
    *,
    labels: PathLike | Sequence[str] | None,
    task: str | None = None,
    where: str,
    expected: str,
) -> VideoList:
    """The rows as samples.

    Args:
        find: a video's path by what a row calls it; None: there is none.
        labels: class names, as `read_labels` takes them; None: those that occur.
        task: kind of target; None: as the rows say.
        where, expected: what the rows are from, and what should be there.

    Raises:
        AnnotationError: a label that is no class, or no classes; rows that can be meant in two ways.
    """
    names = None if labels is None else read_labels(labels)
    task, classes, rows, targets, notes = understand(rows, names, task, where, name)
    if not classes:
        raise AnnotationError(f"{where}: no classes of {name} {split} there; expected {expected}.")
    samples, missing = [], []
    for row, target in zip(rows, targets, strict=True):
        found = _locate(row.places, target, find)
        if found is not None:
            samples.append(found)
        else:
            missing.append(Sample(row.places[0].name, target, *row.places[0][1:]))
    return VideoList(name, split, None, classes, tuple(samples), tuple(missing), notes, task)


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


def _locate(places: tuple[Place, ...], target: Target, find: Callable[[str], str | None]) -> Sample | None:
    for place in places:
        if (path := find(place.name)) is not None:
            return Sample(path, target, place.start, place.end)
    return None
