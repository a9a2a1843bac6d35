"""The files that a timeline is written to, by their suffix."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from timesformer_zoo.timelines.page import write_html
from timesformer_zoo.timelines.picture import write_png
from timesformer_zoo.timelines.result import Timeline
from timesformer_zoo.writing import to_json, whole_file, write_json

__all__ = ["FORMATS", "format_of"]

PathLike = str | os.PathLike[str]

_COLUMNS = ("path", "start", "end", "label", "probability", "unclear", "windows", "reason")


def format_of(path: PathLike) -> Callable[[Timeline, PathLike], None]:
    """What writes a file of such a name. Raises ValueError; ModuleNotFoundError: what it needs is not installed."""
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        got = suffix or "a name without a suffix"
        raise ValueError(f"{os.fspath(path)}: a timeline is written as {', '.join(FORMATS)}, got {got}")
    if suffix == ".png":
        import matplotlib  # noqa: F401  # so that one knows before hours of work, not after
    return FORMATS[suffix]


def _write_json(timeline: Timeline, path: PathLike) -> None:
    write_json(path, timeline.to_dict())


def _write_jsonl(timeline: Timeline, path: PathLike) -> None:
    with whole_file(path) as partial, partial.open("w", encoding="utf-8") as file:
        for row in _rows(timeline):
            file.write(to_json(row) + "\n")


def _write_csv(timeline: Timeline, path: PathLike) -> None:
    with whole_file(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, _COLUMNS)
        writer.writeheader()
        for row in _rows(timeline):
            rounded = {name: round(value, 4) if isinstance(value, float) else value for name, value in row.items()}
            writer.writerow(rounded)


def _rows(timeline: Timeline) -> Iterator[dict[str, Any]]:
    """Segments, and gaps, which have a reason and no label, in the order of time."""
    for part in timeline.parts:
        yield {"path": timeline.path, **part.to_dict()}


FORMATS: dict[str, Callable[[Timeline, PathLike], None]] = {
    ".json": _write_json,
    ".jsonl": _write_jsonl,
    ".csv": _write_csv,
    ".html": write_html,
    ".png": write_png,
}
"""Suffix -> what writes such a file."""
