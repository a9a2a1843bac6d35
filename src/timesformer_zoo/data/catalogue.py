"""The data sets: one entry of `DATASETS` each, which says how its annotation files are read and how it is split."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timesformer_zoo.data.annotations import SPLIT_WORDS, DataSet, Labels, Place, Request, Row, split_of
from timesformer_zoo.data.folders import folder_classes, folder_rows
from timesformer_zoo.data.index import is_elsewhere
from timesformer_zoo.data.shards import shard_records
from timesformer_zoo.data.tables import COLUMNS, read_records, read_text
from timesformer_zoo.errors import AnnotationError

if TYPE_CHECKING:
    from timesformer_zoo.data.videos import VideoList

__all__ = ["DATASETS", "shard_rows"]

# ---- readers: a request -> rows ----


def _column(record: dict[str, Any], names: tuple[str, ...], path: Path) -> str | None:
    name, value = next(((name, record[name]) for name in names if record.get(name) not in (None, "")), ("", None))
    if isinstance(value, (list, dict)):
        raise AnnotationError(f"{path}: expected one {name} for each video, got {str(value)[:80]}.")
    return None if value is None else str(value).strip()


def _require(record: dict[str, Any], names: tuple[str, ...], path: Path) -> str:
    value = _column(record, names, path)
    if not value:
        raise AnnotationError(
            f"{path}: expected a column {' or '.join(names[:6])} in each row, got {str(record)[:200]}."
        )
    return value


def _seconds(record: dict[str, Any], names: tuple[str, ...], path: Path) -> float | None:
    value = _column(record, names, path)
    try:
        seconds = None if value is None else float(value)
    except ValueError:
        seconds = math.nan
    if seconds is not None and not math.isfinite(seconds):
        raise AnnotationError(f"{path}: {names[0]} is {value!r}, expected seconds.")
    return seconds


def _starts(request: Request, path: Path) -> list[str]:
    """Where the paths in a file may start: at the root or at its own folder, which comes first if it is in the root."""
    root, own = request.root.resolve(), path.resolve().parent
    if root in own.parents:
        return [os.path.relpath(str(own), str(root)), ""]
    return [""] if own == root else ["", str(own)]


def _join(start: str, name: str) -> str:
    return name if is_elsewhere(name) else os.path.join(start, name)


def _records(request: Request, path: Path) -> Iterator[dict[str, Any]]:
    """The rows of an annotation file that are of the split, if they say of which they are."""
    starts = _starts(request, path)

    def exists(name: str) -> bool:
        try:
            return any(request.find(_join(start, name)) is not None for start in starts)
        except AnnotationError:  # several videos
            return True

    records = read_records(path, exists, request.notes, request.several)
    of_split = [_column(record, COLUMNS["split"], path) for record in records]
    words = [word for known in SPLIT_WORDS.values() for word in known if word in path.stem.lower()]
    if not any(of_split) and not words and split_of(path.parent.name) is None:
        # One list for all splits may tell them by the folders that the videos are in.
        folders = [(_column(r, COLUMNS["video"], path) or "").replace("\\", "/").partition("/")[0] for r in records]
        if all(split_of(folder) for folder in folders):
            of_split = list(folders)
        else:
            request.notes.append(f"{path.name} says nothing of splits: all of it is taken for {request.split}")
    found: dict[str | None, str | None] = {}
    for record, text in zip(records, of_split, strict=True):
        split = split_of(text) if text else request.split
        if split is None:
            known = ", ".join(word for words in SPLIT_WORDS.values() for word in words)
            raise AnnotationError(f"{path}: its column for the split has {text!r}, expected one of {known}.")
        found.setdefault(split, text)
        if split == request.split:
            yield record
    if records and request.split not in found:
        have = ", ".join(map(str, found.values()))
        raise AnnotationError(f"{path}: its rows are of the splits {have}; expected some for {request.split!r}.")


def _label(record: dict[str, Any], path: Path) -> tuple[str | tuple[str, ...] | None, int | None]:
    """The class's name, or else its index as text, or all there are; and the index where there are name and index."""
    for column in (*COLUMNS["name"], *COLUMNS["label"], *COLUMNS["target"]):
        if isinstance(several := record.get(column), list) and not any(isinstance(v, (list, dict)) for v in several):
            return tuple(map(str, several)), None
    label = _column(record, COLUMNS["label"], path)
    name = _column(record, COLUMNS["name"], path)
    target = _column(record, COLUMNS["target"], path)
    if name and label and label.isdecimal():
        target = target or label
    text = name or label or target
    return text, int(target) if text and target and target.isdecimal() and not text.isdecimal() else None


def _table_rows(request: Request) -> Iterator[Row]:
    """A list, or a table with column names; parts of a video have a start and an end."""
    for path in request.files:
        starts = _starts(request, path)
        for record in _records(request, path):
            name = _require(record, COLUMNS["video"], path)
            part = (_seconds(record, COLUMNS["start"], path), _seconds(record, COLUMNS["end"], path))
            label, target = _label(record, path)
            yield Row(label, tuple(dict.fromkeys(Place(_join(start, name), *part) for start in starts)), target, record)


def shard_rows(request: Request) -> Iterator[Row]:
    """WebDataset's: files of one name but for what follows its first point are a sample."""
    for path, member, record in shard_records(request.files, request.notes):
        label, target = _label(record, path)
        yield Row(label, (Place(member),), target, record)


def _read_column(root: str, split: str, labels: Labels | None, task: str | None) -> VideoList:
    from timesformer_zoo.data.sources import load_column  # which needs this table

    return load_column(root, split, labels, task)


def _ssv2_rows(request: Request) -> Iterator[Row]:
    """The template, "Holding [something] next to [something]", is the class; `label` has it filled in."""
    for path in request.files:
        for record in _records(request, path):
            yield Row(_require(record, ("template",), path), (Place(_require(record, ("id",), path)),))


def _diving48_rows(request: Request) -> Iterator[Row]:
    """The files are cut already: start_frame and end_frame count in the films they come from."""
    for path in request.files:
        for record in _records(request, path):
            yield Row(_require(record, ("label",), path), (Place(_require(record, ("vid_name",), path)),))


def _kinetics_rows(request: Request) -> Iterator[Row]:
    """Ten seconds of each film, cut out as <id>_<start>_<end>, or the whole film as <id>."""
    for path in request.files:
        for record in _records(request, path):
            name = _require(record, ("youtube_id",), path)
            first, last = (_seconds(record, (column,), path) for column in ("time_start", "time_end"))
            if first is None or last is None:
                raise AnnotationError(f"{path}: expected time_start and time_end in each row, got {record}.")
            cut = Place(f"{name}_{int(first):06d}_{int(last):06d}")
            yield Row(_require(record, ("label",), path), (cut, Place(name, first, last)))


def _lines(request: Request, path: Path) -> Iterator[str]:
    yield from filter(None, map(str.strip, read_text(path, request.notes).split("\n")))


def _ucf101_rows(request: Request) -> Iterator[Row]:
    """Lines "Class/v_Class_g01_c01.avi 1"; test lists have no index, so the folder tells the class in both."""
    for path in request.files:
        for line in _lines(request, path):
            name = re.sub(r"\s+\d+$", "", line).replace("\\", "/")
            if "/" not in name:
                raise AnnotationError(f"{path}: expected lines 'Class/video.avi' or 'Class/video.avi 1', got {line!r}.")
            yield Row(name.split("/")[0], (Place(name),))


def _hmdb51_rows(request: Request) -> Iterator[Row]:
    """A file for each class, lines "name.avi flag": 1 train, 2 test, 0 neither."""
    wanted = {"train": "1", "test": "2"}[request.split]
    for path in request.files:
        label = path.name.split("_test_split")[0]
        for line in _lines(request, path):
            name, _, flag = line.rpartition(" ")
            if flag not in ("0", "1", "2") or not name:
                raise AnnotationError(f"{path}: expected lines 'video.avi 1', with 0, 1 or 2, got {line!r}.")
            if flag == wanted:
                yield Row(label, (Place(f"{label}/{name.strip()}"),))


NTU_NAME = re.compile(r"S(\d{3})C(\d{3})P(\d{3})R(\d{3})A(\d{3})")
NTU60_SUBJECTS = frozenset({1, 2, 4, 5, 8, 9, 13, 14, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38})
NTU120_SUBJECTS = NTU60_SUBJECTS | {
    45, 46, 47, 49, 50, 52, 53, 54, 55, 56, 57, 58, 59, 70, 74, 78, 80, 81, 82, 83, 84, 85, 86, 89, 91, 92, 93, 94, 95,
    97, 98, 100, 103,
}  # fmt: skip

# (number of classes, fold): setup, camera, subject -> whether it is for training
NTU_TRAINING: dict[tuple[int, str], Callable[[int, int, int], bool]] = {
    (60, "xsub"): lambda setup, camera, subject: subject in NTU60_SUBJECTS,
    (60, "xview"): lambda setup, camera, subject: camera in (2, 3),
    (120, "xsub"): lambda setup, camera, subject: subject in NTU120_SUBJECTS,
    (120, "xset"): lambda setup, camera, subject: setup % 2 == 0,
}


def _ntu_rows(num_classes: int) -> Callable[[Request], Iterator[Row]]:
    """File names SsssCcccPpppRrrrAaaa, setup, camera, person, repetition and action, say all."""

    def rows(request: Request) -> Iterator[Row]:
        training = NTU_TRAINING[num_classes, request.fold or ""]
        for path in request.index.paths:
            if match := NTU_NAME.match(os.path.basename(path)):
                setup, camera, subject, _, action = map(int, match.groups())
                if action <= num_classes and training(setup, camera, subject) == (request.split == "train"):
                    yield Row(str(action - 1), (Place(path),))

    return rows


def _kinetics(num: int) -> DataSet:
    files: dict[str, tuple[str, ...]] = {
        split: (f"{name}.csv", f"kinetics_{num}_{name}.csv", f"kinetics-{num}_{name}.csv", f"kinetics{num}_{name}.csv")
        for split, name in (("train", "train"), ("val", "val*"), ("test", "test"))
    }
    about = f"Kinetics-{num}: label,youtube_id,time_start,time_end,split"
    return DataSet(_kinetics_rows, about, files=files, labels=f"kinetics{num}", by_name=True)


_LISTS: dict[str, tuple[str, ...]] = {s: (f"{s}.csv", f"{s}.txt", f"{s}.tsv") for s in ("train", "val", "test")}
# Hugging Face's videofolder: a file beside the videos of a split, whose paths start there, or one with a column for it.
_METADATA: dict[str, tuple[str, ...]] = {
    split: tuple(f"{folder}metadata.{kind}" for folder in (f"{split}*/", "") for kind in ("csv", "jsonl"))
    for split in ("train", "val", "test")
}

DATASETS: dict[str, DataSet] = {
    "folder": DataSet(folder_rows, "a folder per class, in train/ and val/ or not", classes=folder_classes),
    "list": DataSet(
        _table_rows,
        "a line per video: path label, or path,label[,start,end,split] with a header; several labels as 0,2 or "
        "run;sit; or a column of numbers for each label (0 and 1) or value",
        files=_LISTS,
    ),
    "json": DataSet(
        _table_rows,
        "objects with path, label and, for parts of a video, start and end",
        files={split: (f"{split}.json", f"{split}.jsonl") for split in ("train", "val", "test")},
    ),
    "videofolder": DataSet(
        _table_rows,
        "Hugging Face's: metadata.csv or .jsonl with file_name and label, in train/ or not",
        files=_METADATA,
    ),
    "shards": DataSet(
        shard_rows,
        "WebDataset's tar files: a video and .cls, .json or .txt of each sample",
        files={split: (f"{split}*.tar", f"{split}/*.tar", f"*{split}*.tar") for split in ("train", "val", "test")},
        window=10_000,
    ),
    "datasets": DataSet(
        None,
        "a column of videos that load_dataset of Hugging Face's datasets finds: OWNER/NAME, or a folder",
        read=_read_column,
    ),
    "kinetics400": _kinetics(400),
    "kinetics600": _kinetics(600),
    "ssv2": DataSet(
        _ssv2_rows,
        "Something-Something V2: videos, or folders of frames, called by their id",
        splits=("train", "val"),
        files={
            "train": ("something-something-v2-train.json", "train.json"),
            "val": ("something-something-v2-validation.json", "validation.json"),
        },
        labels="something_something_v2",
        by_name=True,
    ),
    "ucf101": DataSet(
        _ucf101_rows,
        "UCF101 and its ucfTrainTestlist",
        splits=("train", "test"),
        folds=("1", "2", "3"),
        files={"train": ("trainlist0{fold}.txt",), "test": ("testlist0{fold}.txt",)},
        labels="ucf101",
        by_name=True,
    ),
    "hmdb51": DataSet(
        _hmdb51_rows,
        "HMDB51 and its testTrainMulti_7030_splits",
        splits=("train", "test"),
        folds=("1", "2", "3"),
        files={"train": ("*_test_split{fold}.txt",), "test": ("*_test_split{fold}.txt",)},
        labels="hmdb51",
        by_name=True,
    ),
    "diving48": DataSet(
        _diving48_rows,
        "Diving-48, the cleaned labels V2",
        splits=("train", "test"),
        files={"train": ("Diving48_V2_train.json",), "test": ("Diving48_V2_test.json",)},
        labels="diving48",
        by_name=True,
    ),
    "ntu60": DataSet(
        _ntu_rows(60), "NTU RGB+D", splits=("train", "test"), folds=("xsub", "xview"), labels="ntu60", by_name=True
    ),
    "ntu120": DataSet(
        _ntu_rows(120),
        "NTU RGB+D 120; classes are called A001 to A120 unless named",
        splits=("train", "test"),
        folds=("xsub", "xset"),
        classes=lambda request: [f"A{i + 1:03d}" for i in range(120)],
        by_name=True,
    ),
    "howto100m": DataSet(
        _table_rows,
        "long videos: video_id and task_id (or label) of each, or of each of their parts, with start and end",
        files={split: (f"{split}.csv", f"howto100m_{split}.csv") for split in ("train", "val", "test")},
        by_name=True,
    ),
}
