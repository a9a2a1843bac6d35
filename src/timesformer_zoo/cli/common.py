"""What several verbs share."""

from __future__ import annotations

import glob
import json
import os
import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from timesformer_zoo.data.index import VideoIndex, is_frame_folder
from timesformer_zoo.engine.mapping import ENGINES, Engine
from timesformer_zoo.errors import AnnotationError, VideoReadError

__all__ = ["engine_of", "find_videos", "print_json"]


def find_videos(names: Iterable[str]) -> Iterator[tuple[str, VideoReadError | None]]:
    """The videos that a user means: each path, or a name that leads to no video and why.

    Args:
        names: each a file, a folder of videos (all of it, and below), a folder of one video's frames, a pattern with
            *, ?, [] and ** (of a shell that left it alone), or "-" for such names on standard input, one a line.
    """
    for name in names:
        if name == "-":
            yield from find_videos(line for line in map(str.strip, sys.stdin) if line not in ("", "-"))
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


def engine_of(args: Namespace) -> Engine:
    """What --engine and the options of its group mean."""
    given = {name: getattr(args, name) for name in ("address", "workers", "cpus", "gpus", "timeout", "attempts")}
    given = {name: value for name, value in given.items() if value is not None}
    if args.engine == "local" and given:
        raise ValueError(f"--{next(iter(given))} is of a cluster: give --engine ray, too")
    return ENGINES[args.engine](**given)


def print_json(values: Mapping[str, Any]) -> None:
    """One object in one line, at once, so that a program can read it while the next is worked on."""
    print(json.dumps(values, ensure_ascii=False), flush=True)
