"""WebDataset shards as records: a sample is what has one name but for its suffixes, in one tar file."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import Any

from timesformer_zoo.data.index import has_video_suffix
from timesformer_zoo.data.tables import column_name, parse_json
from timesformer_zoo.errors import AnnotationError
from timesformer_zoo.video.cache import cache_folder
from timesformer_zoo.video.remote import shown
from timesformer_zoo.video.shards import Shard, read_shard
from timesformer_zoo.words import counted

__all__ = ["expand", "shard_records"]

_AT_ONCE = 16  # shards whose headers are read; most of that is waiting for a network


def expand(pattern: str) -> list[str]:
    """Names from a pattern of WebDataset's: "a-{000..002}.tar", "{a,b}.tar"."""
    found = re.search(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*)\}", pattern)
    if found is None:
        return [pattern]
    first, last, listed = found.groups()
    if listed is None:
        width = len(first) if first.startswith("0") else 0
        choices = [f"{number:0{width}}" for number in range(int(first), int(last) + 1)]
    else:
        choices = listed.split(",")
    return [name for choice in choices for name in expand(pattern[: found.start()] + choice + pattern[found.end() :])]


def shard_records(paths: Sequence[Path], notes: list[str]) -> Iterator[tuple[Path, str, dict[str, Any]]]:
    """(shard, the video's path in it, what is said of its class) of each sample, in the order of the shards.

    Raises:
        VideoReadError: a shard can't be read.
        AnnotationError: a sample without a video or a class, or with two videos, or in two pieces.
    """
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        shards = list(pool.map(read_shard, map(str, paths)))
    if not all(shard.is_kept for shard in shards):
        notes.append(f"lists of shards can't be kept in {cache_folder()}: each run reads all headers again")
    for path, shard in zip(paths, shards, strict=True):
        seen: set[str] = set()
        for key, group in groupby(shard.members, _key):
            members = list(group)
            if key in seen:
                raise AnnotationError(
                    f"{shown(shard.path)}: the files of {key} do not lie together; write the shard in order of names."
                )
            seen.add(key)
            videos = [name for name in members if has_video_suffix(name)]
            if len(videos) != 1:
                raise AnnotationError(
                    f"{shown(shard.path)}: sample {key} has {counted(len(videos), 'videos')} among "
                    f"{', '.join(map(os.path.basename, members))}; expected one."
                )
            yield path, f"{shard.path}::{videos[0]}", _record(shard, members, key)


def _key(name: str) -> str:
    """A sample's name ends at the first point behind the last slash."""
    folder, slash, base = name.rpartition("/")
    return folder + slash + base.partition(".")[0]


def _record(shard: Shard, members: list[str], key: str) -> dict[str, Any]:
    """As a row of a table has it: of .cls, else .json, else .txt."""
    for suffix in (".cls", ".json", ".txt"):
        name = next((name for name in members if name.lower().endswith(suffix) and name in shard.texts), None)
        if name is None:
            continue
        text = shard.texts[name].strip()
        if suffix != ".json":
            return {"label": text}
        content = parse_json(Path(name), text)
        return {column_name(k): v for k, v in content.items()} if isinstance(content, dict) else {"label": content}
    raise AnnotationError(
        f"{shown(shard.path)}: sample {key} has no class, only {', '.join(map(os.path.basename, members))}; expected "
        f".cls, .json or .txt beside the video."
    )
