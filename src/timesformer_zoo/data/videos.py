"""Video data sets: which video has which label, in which split.

    videos = read_videos("ucf101", "UCF-101", split="train", fold="1", annotations="ucfTrainTestlist")
    print(videos.report())

A video that is annotated and not there is listed as missing; it never becomes another one. What could be understood in
several ways is an error, or a line of the report.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from timesformer_zoo.data.annotations import DataSet, Place, Request, Row, read_labels, split_of
from timesformer_zoo.data.catalogue import DATASETS
from timesformer_zoo.data.index import VideoIndex
from timesformer_zoo.data.targets import TASKS, Target, understand
from timesformer_zoo.errors import AnnotationError
from timesformer_zoo.video.origin import Readable
from timesformer_zoo.video.remote import as_path, asking, shown
from timesformer_zoo.words import counted

__all__ = ["DATASETS", "TASKS", "Sample", "Target", "VideoList", "read_videos", "video_list"]

PathLike = str | os.PathLike[str]


class Sample(NamedTuple):
    """One thing to classify: a video, or a part of one."""

    path: str  # of a video file or of a folder of frames; or an address, or a member of a shard
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
    content: Callable[[str], Readable] | None = (
        None  # what `open_video` takes for a sample's path, where that is but a name
    )
    window: int | None = None  # shards are read one by one, and so many samples shuffled together; None: all

    @property
    def shards(self) -> tuple[int, ...]:
        """How many samples there are of each shard, in order; those that are in none count as of one."""
        return tuple(len(list(group)) for _, group in groupby(self.samples, lambda s: s.path.rpartition("::")[0]))

    @property
    def things(self) -> str:
        """What `classes` are, in a word: classes, labels or values."""
        return TASKS[self.task].things

    def label(self, sample: Sample) -> Any:
        """A sample's target by name: its class, the tuple of its labels, or a dict of its values."""
        return TASKS[self.task].label(sample.target, self.classes)

    def readable(self, sample: Sample) -> Readable:
        """What `open_video` takes for a sample."""
        return sample.path if self.content is None else self.content(sample.path)

    def one_class_each(self, purpose: str) -> list[int]:
        """The class of each sample.

        Raises:
            ValueError: their targets are of another kind, with which what is said as `purpose` can't be done.
        """
        found = [sample.target for sample in self.samples if isinstance(sample.target, int)]
        if len(found) < len(self.samples):
            raise ValueError(f"{purpose} needs one class for each video; these have {self.things}: leave it out.")
        return found

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
        things = counted(len(self.classes), self.things)
        lines = [f"{title}: {counted(total, 'videos')} in {things}, {len(self.samples)} found"]
        lines[0] += f", {len(self.missing)} missing" if self.missing else ""
        lines += [f"  {note}" for note in self.notes]
        if self.window is not None:
            lines.append(
                f"  {counted(len(self.shards), 'shards')}; in training in random order, their samples in windows of "
                f"{self.window}"
            )
        lines += self._spread() if self.task == "regression" else self._sizes(per_class)
        lines += [f"  missing: {sample.path}" for sample in self.missing[:5]]
        if len(self.missing) > 5:
            lines.append(f"  missing: {len(self.missing) - 5} more")
        return shown("\n".join(lines))

    def _sizes(self, per_class: bool | None) -> list[str]:
        counts = self.counts()
        if per_class is None:
            per_class = len(counts) <= 20
        sizes = sorted(found for found, _ in counts.values())
        of = "in a class" if self.task == "classes" else "with a label"
        lines = [f"  videos {of}: {sizes[0]} to {sizes[-1]}, median {sizes[len(sizes) // 2]}"]
        if without := sum(sample.target == () for sample in self.samples):
            lines.append(f"  {counted(without, 'videos')} without any label")
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
        root: folder of the videos: a path, or an address that fsspec knows, such as "hf://datasets/me/clips"; for
            "datasets" what `load_dataset` takes.
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
        VideoReadError: an address can't be listed or read.
    """
    if task is not None:
        _choose(TASKS, task, "task")
    with asking(str(root)):
        return _read_videos(data, root, split, fold, annotations, labels, task)


def _read_videos(
    data: str,
    root: PathLike,
    split: str,
    fold: str | int | None,
    annotations: PathLike | None,
    labels: PathLike | Sequence[str] | None,
    task: str | None,
) -> VideoList:
    entry = _choose(DATASETS, data, "data set")
    _choose(dict.fromkeys(entry.splits), split, f"split of {data}")
    if fold is not None or entry.folds:
        fold = entry.folds[0] if fold is None else str(fold)
        _choose(dict.fromkeys(entry.folds), fold, f"fold of {data}")
    if entry.read is not None:
        if annotations is not None:
            raise AnnotationError(f"{annotations}: {data} has its classes beside its videos; leave `annotations` out.")
        return entry.read(str(root), split, labels, task)
    root = as_path(root)
    annotations = as_path(annotations) if annotations is not None else None
    if not root.is_dir():
        raise AnnotationError(f"{root}: no such folder; expected the folder of the videos of {data}.")
    files = _find_files(entry, root, annotations, split, fold)
    index = VideoIndex(root)
    several = task in ("multilabel", "regression")
    request = Request(root, split, fold, files, index, index.find if entry.by_name else index.at, several)
    rows = list(entry.rows(request)) if entry.rows is not None else []
    if annotations is not None and split_of(annotations.stem) not in (None, split):
        request.notes.append(f"{annotations.name} was given, and is taken, for the split {split}")
    if labels is None:
        labels = entry.labels if entry.labels is not None else entry.classes(request) if entry.classes else None
    where = ", ".join(map(str, files)) or str(root)
    videos = video_list(rows, data, split, request.find, labels=labels, task=task, where=where, expected=entry.about)
    notes = tuple(dict.fromkeys((*request.notes, *videos.notes)))
    return replace(videos, fold=fold, notes=notes, window=entry.window)


def video_list(
    rows: Iterable[Row],
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
    task, classes, known, targets, notes = understand(list(rows), names, task, where, name)
    if not classes:
        raise AnnotationError(f"{where}: no classes of {name} {split} there; expected {expected}.")
    samples, missing = [], []
    for row, target in zip(known, targets, strict=True):
        found = _locate(row.places, target, find)
        if found is not None:
            samples.append(found)
        else:
            missing.append(Sample(row.places[0].name, target, *row.places[0][1:]))
    return VideoList(name, split, None, classes, tuple(samples), tuple(missing), notes, task=task)


def _choose(known: dict[str, Any], name: str, what: str) -> Any:
    if name not in known:
        have = ", ".join(known) or "none"
        raise AnnotationError(f"Unknown {what}: {name!r}. Choose from: {have}.")
    return known[name]


def _find_files(entry: DataSet, root: Path, annotations: Path | None, split: str, fold: str | None) -> tuple[Path, ...]:
    if not entry.files or (annotations is not None and annotations.is_file()):
        return (annotations,) if annotations is not None else ()
    names = [name.format(fold=fold) for name in entry.files[split]]
    folders = [root, root / "annotations", root / "labels"] if annotations is None else [annotations]
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
