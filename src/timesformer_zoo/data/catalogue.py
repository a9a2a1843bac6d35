"""The data sets: one entry of `DATASETS` each, which says how its annotation files are read and how it is split."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from timesformer_zoo.data.annotations import (
    DataSet,
    Place,
    Request,
    Row,
    VideoIndex,
    read_list,
    read_records,
    video_stem,
)
from timesformer_zoo.errors import AnnotationError

__all__ = ["DATASETS"]

# ---- readers: a request -> rows ----

SPLIT_FOLDERS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}


def _split_folder(root: Path, split: str) -> Path | None:
    return next((root / name for name in SPLIT_FOLDERS.get(split, ()) if (root / name).is_dir()), None)


def _class_folders(request: Request) -> list[Path]:
    """The folder of each class. Raises AnnotationError if `root` has split folders, but not this one."""
    folder = _split_folder(request.root, request.split)
    if folder is None and any(_split_folder(request.root, split) for split in SPLIT_FOLDERS):
        raise AnnotationError(f"{request.root} has folders of splits, but none for {request.split!r}.")
    if folder is None and request.split == "test":
        raise AnnotationError(f"{request.root} has no folder 'test'; without split folders there are train and val.")
    folder = folder or request.root
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _folder_classes(request: Request) -> list[str]:
    """Of all splits together, so that a class's index is the same in each."""
    roots = [folder for split in SPLIT_FOLDERS if (folder := _split_folder(request.root, split))] or [request.root]
    return sorted({p.name for root in roots for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")})


def _folder_rows(request: Request) -> Iterator[Row]:
    for folder in _class_folders(request):
        paths = VideoIndex(folder).paths
        if folder.parent == request.root:  # no split folders: a fifth, but at least one of two, is for validation
            shuffled = sorted(paths, key=lambda path: hashlib.sha1(video_stem(path).encode()).digest())
            held_out = round(len(paths) / 5) or min(1, len(paths) // 2)
            paths = sorted(shuffled[:held_out] if request.split == "val" else shuffled[held_out:])
        for path in paths:
            yield Row(folder.name, (Place(os.path.relpath(path, request.root)),))


def _folder_note(request: Request) -> str:
    if any(_split_folder(request.root, split) for split in SPLIT_FOLDERS):
        return ""
    return "no train and val folders: a fifth of each class, chosen by a hash of the file names, is for validation"


# Column names, in order of preference.
NAME = ("path", "video", "file", "filename", "name", "vid_name", "video_id", "youtube_id", "id")
LABEL = ("label", "class", "template", "category", "task_id")
START, END = ("start", "time_start", "start_time"), ("end", "time_end", "end_time")


def _column(record: dict[str, Any], names: tuple[str, ...]) -> str | None:
    return next((str(record[name]).strip() for name in names if record.get(name) not in (None, "")), None)


def _require(record: dict[str, Any], names: tuple[str, ...], path: Path) -> str:
    value = _column(record, names)
    if value is None:
        raise AnnotationError(f"{path}: expected a column {' or '.join(names)} in each row, got {record}.")
    return value


def _seconds(record: dict[str, Any], names: tuple[str, ...], path: Path) -> float | None:
    value = _column(record, names)
    try:
        return None if value is None else float(value)
    except ValueError as error:
        raise AnnotationError(f"{path}: {names[0]} is {value!r}, expected seconds.") from error


def _table_rows(request: Request) -> Iterator[Row]:
    """A table with column names; parts of a video have a start and an end."""
    for path in request.files:
        for record in read_records(path):
            place = Place(_require(record, NAME, path), _seconds(record, START, path), _seconds(record, END, path))
            yield Row(_require(record, LABEL, path), (place,))


def _list_rows(request: Request) -> Iterator[Row]:
    """`path label` on each line, or a table."""
    for path in request.files:
        with path.open(encoding="utf-8-sig") as file:
            header = set(re.split(r"[,\t;]", file.readline().strip().lower()))
        if path.suffix in (".json", ".jsonl") or (header & set(NAME) and header & set(LABEL)):
            yield from _table_rows(Request(request.root, request.split, request.fold, (path,), None))
        else:
            for name, label in read_list(path):
                yield Row(label, (Place(name),))


def _ssv2_rows(request: Request) -> Iterator[Row]:
    """The template, "Holding [something] next to [something]", is the class; `label` has it filled in."""
    for path in request.files:
        for record in read_records(path):
            yield Row(_require(record, ("template",), path), (Place(_require(record, ("id",), path)),))


def _diving48_rows(request: Request) -> Iterator[Row]:
    """The files are cut already: start_frame and end_frame count in the films they come from."""
    for path in request.files:
        for record in read_records(path):
            yield Row(_require(record, ("label",), path), (Place(_require(record, ("vid_name",), path)),))


KINETICS_SPLITS = {"train": ("train",), "val": ("val", "validate", "validation"), "test": ("test",)}


def _kinetics_rows(request: Request) -> Iterator[Row]:
    """Ten seconds of each film, cut out as <id>_<start>_<end>, or the whole film as <id>."""
    for path in request.files:
        for record in read_records(path):
            if record.get("split") and record["split"] not in KINETICS_SPLITS[request.split]:
                continue
            name, start, end = (_require(record, (c,), path) for c in ("youtube_id", "time_start", "time_end"))
            first, last = float(start), float(end)
            cut = Place(f"{name}_{int(first):06d}_{int(last):06d}")
            yield Row(_require(record, ("label",), path), (cut, Place(name, first, last)))


def _ucf101_rows(request: Request) -> Iterator[Row]:
    """Lines "Class/v_Class_g01_c01.avi 1"; test lists have no index, so the folder tells the class in both."""
    for path in request.files:
        for line in path.read_text().splitlines():
            if line.strip():
                name = line.split()[0]
                yield Row(name.split("/")[0], (Place(name),))


def _hmdb51_rows(request: Request) -> Iterator[Row]:
    """A file for each class, lines "name.avi flag": 1 train, 2 test, 0 neither."""
    wanted = {"train": "1", "test": "2"}[request.split]
    for path in request.files:
        label = path.name.split("_test_split")[0]
        for line in path.read_text().splitlines():
            if line.strip():
                name, _, flag = line.strip().rpartition(" ")
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
        for path in request.index.paths if request.index else ():
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


_LISTS: dict[str, tuple[str, ...]] = {s: (f"{s}.csv", f"{s}.txt") for s in ("train", "val", "test")}

DATASETS: dict[str, DataSet] = {
    "folder": DataSet(
        _folder_rows, "a folder per class, in train/ and val/ or not", classes=_folder_classes, note=_folder_note
    ),
    "list": DataSet(_list_rows, "a line per video: path label, or path,label[,start,end] with a header", files=_LISTS),
    "json": DataSet(
        _table_rows,
        "objects with path, label and, for parts of a video, start and end",
        files={split: (f"{split}.json", f"{split}.jsonl") for split in ("train", "val", "test")},
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
