"""Lists of videos that are no files of a folder: shards by their names, and columns of Hugging Face's `datasets`."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timesformer_zoo.data.annotations import Labels, Place, Request, Row, split_of
from timesformer_zoo.data.catalogue import DATASETS, shard_rows
from timesformer_zoo.data.index import VideoIndex
from timesformer_zoo.data.shards import expand
from timesformer_zoo.data.videos import VideoList, video_list
from timesformer_zoo.errors import AnnotationError, VideoReadError
from timesformer_zoo.video.origin import Content, Readable
from timesformer_zoo.video.remote import as_path, asking, is_address, matching

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["load_column", "read_dataset", "read_shards"]

PathLike = str | os.PathLike[str]


def read_shards(
    shards: PathLike | Iterable[PathLike],
    split: str = "train",
    *,
    labels: Labels | None = None,
    task: str | None = None,
    window: int | None = 10_000,
) -> VideoList:
    """The videos of WebDataset shards: tar files, of which only headers and labels are read here, once.

    A sample is what has one name up to the first point: one video, and its class in `.cls` or `.txt` (an index or a
    name) or `.json` (an object with "label", and what else a table's column may be called).

    Args:
        shards: paths or addresses, each may be a pattern: "clips-{000000..000099}.tar" or "clips-*.tar".
        split: what to call it.
        labels, task: as `read_videos` takes them; None: as the shards have them.
        window: in training, shards come in random order, and so many samples of what follows from it are shuffled
            together, so that a disk or a cache is asked for few shards at a time; None: all samples are shuffled.

    Raises:
        AnnotationError: no such shard, or a sample that is not as above.
        VideoReadError: a shard can't be read, or is compressed.
    """
    given = [shards] if isinstance(shards, (str, os.PathLike)) else list(shards)
    if window is not None and window < 1:
        raise ValueError(f"window is {window}, expected a number of samples from 1 up, or None")
    names: list[str] = []
    for name in (name for pattern in given for name in expand(os.fspath(pattern))):
        if is_address(name):
            found = matching(name) if "*" in name else [name]
        else:
            found = [name] if os.path.exists(name) else sorted(glob.glob(name))
        if not found:
            raise AnnotationError(f"{name}: there is no such shard; check the path or the pattern.")
        names += found
    if len(set(names)) < len(names):
        raise AnnotationError(f"{max(names, key=names.count)}: this shard is named twice; expected each once.")
    if not names:
        raise AnnotationError("no shards were given; expected paths or addresses of tar files.")
    entry = DATASETS["shards"]
    index = VideoIndex(Path())
    with asking(names[0]):
        request = Request(Path(), split, None, tuple(map(as_path, names)), index, index.at)
        where = names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")
        videos = video_list(
            shard_rows(request), "shards", split, index.at, labels=labels, task=task, where=where, expected=entry.about
        )
    return replace(videos, notes=(*request.notes, *videos.notes), window=window)


def read_dataset(
    dataset: Dataset,
    video: str = "video",
    target: str = "label",
    *,
    labels: Labels | None = None,
    task: str | None = None,
) -> VideoList:
    """The videos of a column of a `datasets.Dataset`; they are read when a sample is, by the sample's own row.

    Args:
        dataset: with random access. A streaming one has none, which an exact resume and an exact split need.
        video: a column of `Video()`, of paths or addresses, or of bytes.
        target: a column of `ClassLabel`, of names or of indices, of lists of these, or of values.
        labels: class names, as `read_videos` takes them; None: those of the `ClassLabel`, or those that occur.
        task: kind of target, as `read_videos` takes it; None: as the column has it.

    Raises:
        AnnotationError: no such column, or none of that kind.
        TypeError: no `datasets.Dataset`.
    """
    import datasets

    if not isinstance(dataset, datasets.Dataset):
        advice = "call load_dataset without streaming, and choose a split"
        raise TypeError(
            f"expected a datasets.Dataset, whose rows can be read in any order, got {type(dataset).__name__}; {advice}"
        )
    features = dataset.features
    for column in (video, target):
        if column not in features:
            raise AnnotationError(f"the data set has no column {column!r}; it has {', '.join(features)}.")
    name = dataset.info.dataset_name or dataset.builder_name or "dataset"
    split = str(dataset.split or "train")
    kind = getattr(features[target], "feature", features[target])  # of a list's members, too
    if isinstance(kind, datasets.ClassLabel) and labels is None:
        labels = kind.names
    targets = list(dataset.select_columns(target)[target])
    if wrong := [value for value in targets if not isinstance(value, (str, int, float, list))]:
        raise AnnotationError(
            f"column {target!r}: expected an index, a name, a value, or a list of labels for each video, got "
            f"{str(wrong[0])[:80]!r}."
        )
    column = dataset.select_columns(video)
    content = None
    if isinstance(features[video], datasets.Value) and "string" in features[video].dtype:
        paths = list(column[video])
    else:
        if isinstance(features[video], datasets.Video):
            column = column.cast_column(video, datasets.Video(decode=False))
        paths = [f"{name}[{i}]" for i in range(len(dataset))]
        content = _Column(column, video)
    written = [tuple(map(str, value)) if isinstance(value, list) else str(value) for value in targets]
    rows = [Row(value, (Place(path),)) for path, value in zip(paths, written, strict=True)]
    expected = "rows with a video and its class"
    videos = video_list(rows, name, split, str, labels=labels, task=task, where=f"{name} {split}", expected=expected)
    return replace(videos, content=content)


def load_column(root: str, split: str, labels: Labels | None = None, task: str | None = None) -> VideoList:
    """`read_dataset` of what `load_dataset` finds, or `save_to_disk` wrote: of the split that is called so or alike.

    Its only column of `Video()` is the videos', else "video"; its only `ClassLabel`, else "label", their class.

    Raises:
        AnnotationError: it can't be loaded, or has no such split.
    """
    import datasets

    try:
        saved = any((Path(root) / name).is_file() for name in ("dataset_dict.json", "state.json"))
        found = datasets.load_from_disk(root) if saved else datasets.load_dataset(root)
    except Exception as error:  # of whatever it is loaded from
        reason = str(error).partition("\n")[0]
        raise AnnotationError(f"{root}: datasets can't load it ({type(error).__name__}: {reason}).") from error
    if isinstance(found, datasets.Dataset):
        found = {str(found.split or "train"): found}
    dataset = next((found[name] for name in found if split in (name, split_of(name))), None)
    if dataset is None:
        raise AnnotationError(f"{root}: it has no split {split!r}; it has {', '.join(found)}.")
    features = dataset.features

    def only(kind: type, otherwise: str) -> str:
        columns = [name for name, feature in features.items() if isinstance(feature, kind)]
        return columns[0] if len(columns) == 1 else otherwise

    video, target = only(datasets.Video, "video"), only(datasets.ClassLabel, "label")
    return replace(read_dataset(dataset, video, target, labels=labels, task=task), name=root, split=split)


@dataclass(frozen=True)
class _Column:
    """What is in the row that a sample's path names."""

    column: Dataset
    name: str

    def __call__(self, path: str) -> Readable:
        value: Any = self.column[int(path.rpartition("[")[2].rstrip("]"))][self.name]
        if isinstance(value, Mapping):
            value = value.get("bytes") or value.get("path")
        if isinstance(value, bytes):
            return Content(value, path)
        if not isinstance(value, str):
            raise VideoReadError(f"{path}: expected a video's path or bytes, got {type(value).__name__}; fill the row")
        return value
