"""What several verbs share."""

from __future__ import annotations

import glob
import os
import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timesformer_zoo.data.index import VideoIndex, has_video_suffix, is_elsewhere, is_frame_folder
from timesformer_zoo.engine.mapping import ENGINES, Engine
from timesformer_zoo.errors import AnnotationError, VideoReadError
from timesformer_zoo.hub.facts import Result
from timesformer_zoo.results import Segment
from timesformer_zoo.video.remote import as_path, is_folder, masked, matching
from timesformer_zoo.video.shards import is_member
from timesformer_zoo.words import counted
from timesformer_zoo.writing import to_json

if TYPE_CHECKING:
    from timesformer_zoo.train.evaluation import Evaluation

__all__ = [
    "data_in_words",
    "engine_of",
    "find_videos",
    "print_json",
    "result_of",
    "segment_in_words",
    "shares_in_words",
    "shares_of",
]


def find_videos(names: Iterable[str]) -> Iterator[tuple[str, VideoReadError | None]]:
    """The videos that a user means: each path, or a name that leads to no video and why.

    Args:
        names: each a file, a folder of videos (all of it, and below), a folder of one video's frames, a pattern with
            *, ?, [] and ** (of a shell that left it alone), the address of a file or a folder of videos or such with *,
            a member of a shard, or "-" for such names on standard input, one a line.
    """
    for name in names:
        if name == "-":
            listed = [line for line in map(str.strip, sys.stdin) if line not in ("", "-")]
            yield from find_videos(listed)
            if not listed:
                yield name, VideoReadError(f"{name}: no names on standard input")
            continue
        if is_elsewhere(name):  # before a ? in it is taken for a pattern
            yield from _behind(name)
            continue
        try:
            if os.path.isdir(name) and not is_frame_folder(name):
                found = VideoIndex(Path(name)).paths
                yield from ((path, None) for path in found)
                if not found:
                    yield name, VideoReadError(f"{name}: no videos in this folder")
            elif glob.has_magic(name) and not os.path.exists(name):
                matches = sorted(glob.glob(name, recursive=True))
                yield from find_videos(matches)
                if not matches:
                    yield name, VideoReadError(f"{name}: no file fits this pattern")
            else:
                yield name, None
        except OSError as error:
            yield name, VideoReadError(f"{name}: cannot be listed ({error.strerror}); check the path")
        except AnnotationError as error:
            yield name, VideoReadError(str(error))


def data_in_words(args: Namespace) -> str:
    """What a card calls the data that a verb reads: the folder's own name, not where it lies, and its kind."""
    where = masked(str(args.videos)).partition("?")[0]  # of an address
    return f"{Path(where).resolve().name} ({args.data})"


def result_of(evaluation: Evaluation, args: Namespace) -> Result:
    """What a card says of an evaluation."""
    fold = f", fold {evaluation.fold}" if evaluation.fold else ""
    how = f"{evaluation.clips} × {evaluation.crops} views, {evaluation.protocol} protocol"
    how = f"{counted(evaluation.count, 'videos')}, {how}"
    return Result(evaluation.card_metrics, data_in_words(args) + fold, evaluation.split, how)


def _behind(name: str) -> Iterator[tuple[str, VideoReadError | None]]:
    """An address, or one with *, or a member of a shard; an address without a video's suffix may be a folder's."""
    try:
        if "*" in name:
            matches = matching(name)
            yield from ((path, None) for path in matches)
            if not matches:
                yield name, VideoReadError(f"{masked(name)}: no file fits this pattern")
            return
        folder = not is_member(name) and not has_video_suffix(name) and "?" not in name and is_folder(name)
        found = VideoIndex(as_path(name)).paths if folder else [name]
        yield from ((path, None) for path in found)
        if not found:
            yield name, VideoReadError(f"{masked(name)}: no videos in this folder")
    except VideoReadError as error:
        yield name, error


def engine_of(args: Namespace) -> Engine:
    """What --engine and the options of its group mean."""
    given = {name: getattr(args, name) for name in ("address", "workers", "cpus", "gpus", "timeout", "attempts")}
    given = {name: value for name, value in given.items() if value is not None}
    if args.engine == "local" and given:
        raise ValueError(f"--{next(iter(given))} is of a cluster: give --engine ray, too")
    return ENGINES[args.engine](**given)


def print_json(values: Mapping[str, Any]) -> None:
    """One object in one line, at once, so that a program can read it while the next is worked on."""
    print(to_json(values), flush=True)


def shares_of(segments: Iterable[Segment], total: float) -> list[dict[str, Any]]:
    """The share of the time of each label, the longest first; of what is unclear, together."""
    seconds: dict[str | None, float] = {}
    for segment in segments:
        label = None if segment.unclear else segment.label
        seconds[label] = seconds.get(label, 0.0) + segment.end - segment.start
    return [
        {"label": label, "unclear": label is None, "share": value / total}
        for label, value in sorted(seconds.items(), key=lambda item: -item[1])
    ]


def shares_in_words(shares: Iterable[Mapping[str, Any]]) -> str:
    """Of `shares_of`: pan left 60%, unclear 40%."""
    return ", ".join(f"{'unclear' if entry['unclear'] else entry['label']} {entry['share']:.0%}" for entry in shares)


def segment_in_words(segment: Mapping[str, Any]) -> str:
    """A segment as its `to_dict` has it, without its times."""
    label, probability = segment["label"], segment["probability"]
    return (
        f"unclear (at best {label}, {probability:.0%})" if segment["unclear"] else f"{label} ({probability:.0%} sure)"
    )
