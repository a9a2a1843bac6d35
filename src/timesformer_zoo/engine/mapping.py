"""Something done to each of many videos, here or on a cluster, and its answers kept so that a rerun does the rest."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from timesformer_zoo.engine.cluster import RayEngine
from timesformer_zoo.engine.results import ResultFolder
from timesformer_zoo.engine.work import Row, Work, of_error, of_video, row_of
from timesformer_zoo.errors import VideoReadError

__all__ = ["ENGINES", "Engine", "LocalEngine", "map_videos", "named_engine"]


class Engine(Protocol):
    """Who does the work."""

    def run(self, work: Work, videos: Iterable[tuple[int, str]]) -> Iterator[tuple[int, Row]]:
        """A row for each of the videos, which are numbered; in any order."""
        ...


@dataclass(frozen=True)
class LocalEngine:
    """This process, one video after another, in their order. Whatever is no VideoReadError is raised, and names it."""

    def run(self, work: Work, videos: Iterable[tuple[int, str]]) -> Iterator[tuple[int, Row]]:
        answer = work.load()
        for number, path in videos:
            try:
                row = row_of(path, answer(path))
            except VideoReadError as error:
                row = row_of(path, of_error(path, error))
            except Exception as error:
                raise of_video(path, error) from error
            yield number, row


ENGINES: Mapping[str, type[LocalEngine] | type[RayEngine]] = {"local": LocalEngine, "ray": RayEngine}
"""Each by the name that `--engine` and `map_videos` take."""


def map_videos(
    work: Work,
    videos: Iterable[str | os.PathLike[str]],
    *,
    engine: Engine | str = "local",
    out: str | os.PathLike[str] | None = None,
    retry_errors: bool = False,
) -> Generator[Row, None, None]:
    """Do the same to many videos: a row for each, plain values for JSON, as soon as it is there.

        rows = map_videos(Sharpness(), glob("footage/**/*.mp4"), engine=RayEngine(address="auto"), out="sharpness")

    Each row begins with its video's "path", of an address without user, password and query, where secrets stand; it
    then has a "digest" of the address, too, which tells it from others. A video that can't be read has an "error" in
    place of an answer, and so has one that a cluster gave up: see `RayEngine`. Engines give the same rows, to the bit
    where machines are of one kind and use as many threads: a video is worked on by itself, whatever else is.

    Args:
        work: what is done.
        videos: paths, as they are to be known in the rows; machines of a cluster see the same files there.
        engine: one of `ENGINES`, or a `RayEngine` with what it is to use.
        out: a folder, made if need be, for the rows: `part-00000.jsonl` and so on, each of 10,000 rows, in any order,
            whole once it has that name. Rows that are in it are not made again, errors neither, so that the same call
            continues after an interruption, a kill or a power failure; a path that comes twice is done once. One run
            at a time writes there, and all have the same `work.settings`. None: rows come in the order of `videos`.
        retry_errors: remove from `out` the rows with an error, so that their videos are tried again.

    Yields:
        The rows that this call made, while it is read; with `out`, each when it is safe there from this process's end.
        Close it, or read it to its end.

    Raises:
        OutputError: `out` is another's: of other settings, or being written; or a file in it is damaged.
        WriteError: `out` can't be written to, or its disk is full. What is there is whole, and the same call goes on.
        ClusterError: the cluster is not there, or its workers can't load the work.
        ValueError: no engine of this name; or the work's own, of a call that makes no sense.
    """
    engine = named_engine(engine)
    paths = (os.fspath(video) for video in videos)
    if out is None:
        return _in_order(engine.run(work, enumerate(paths)))
    return _into_folder(engine, work, paths, out, retry_errors)


def named_engine(engine: Engine | str) -> Engine:
    """One of `ENGINES` by its name; any other as it is. Raises ValueError."""
    if not isinstance(engine, str):
        return engine
    if engine not in ENGINES:
        raise ValueError(f"engine {engine!r} is not known; expected one of {', '.join(ENGINES)}")
    return ENGINES[engine]()


def _in_order(rows: Iterator[tuple[int, Row]]) -> Generator[Row, None, None]:
    waiting: dict[int, Row] = {}
    due = 0
    for number, row in rows:
        waiting[number] = row
        while due in waiting:
            yield waiting.pop(due)
            due += 1


def _into_folder(
    engine: Engine, work: Work, paths: Iterable[str], out: str | os.PathLike[str], retry_errors: bool
) -> Generator[Row, None, None]:
    with ResultFolder(out, work.settings, retry_errors=retry_errors) as results:
        todo = (path for path in paths if results.claim(path))
        for _, row in engine.run(work, enumerate(todo)):
            results.add(row)
            yield row
