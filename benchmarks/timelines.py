"""Long videos through the whole command `timeline`, with the embedded model: speed, memory, and where it sees changes.

    python benchmarks/timelines.py --write

The videos are made here, as `motion_film.py` says: pictures under a virtual camera, H.264 at 25 frames a second. Some
minutes are drawn, and their packets repeated to the length of the row. "Decoding alone" is PyAV's, of all frames, by as
many threads as it likes, with nothing done to them; the command's time has Python's start and imports. Memory is that
of all its processes at their peaks, counted when a sixth of the video has been seen, and at its end.

F1 of boundaries: a found one is right if a true one lies within 0.5 s, each true one counts once.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av
from hour import repeat
from measuring import MIB, descendants, memory
from motion_film import write_film
from results import Table, run

from timesformer_zoo import Prediction, Score, segments

NEAR = 0.5  # seconds


@dataclass(frozen=True)
class Row:
    """A film: how much of it is drawn, and how often."""

    width: int
    height: int
    minutes: int
    times: int


ROWS = {"an hour, 640 x 360": Row(640, 360, 5, 12), "ten minutes, 1280 x 720": Row(1280, 720, 1, 10)}
COLUMNS = (
    "windows", "s", "decoding alone, s", "of decoding's speed", "after a sixth, MiB", "at the end, MiB",
    "F1 of boundaries", "without smoothing", "right labels, of the time",
)  # fmt: skip


def decode(path: Path) -> float:
    """Seconds that all frames take."""
    start = time.perf_counter()
    with av.open(str(path)) as file:
        file.streams.video[0].thread_type = "AUTO"
        for _ in file.decode(video=0):
            pass
    return time.perf_counter() - start


def label(video: Path, duration: float) -> tuple[list[Prediction], float, list[float]]:
    """The windows that the command prints, its time, and its processes' memory after a sixth and at the end."""
    command = [sys.executable, "-m", "timesformer_zoo_cli", "timeline", str(video), "--device", "cpu", "--json"]
    windows: list[Prediction] = []
    sizes = [0.0, 0.0]
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for line in process.stdout:
            row: dict[str, Any] = json.loads(line)
            if "top" not in row:
                continue
            top = tuple(Score(**score) for score in row["top"])
            windows.append(Prediction(str(video), top, row["start"], row["end"]))
            early = not sizes[0] and row["end"] > duration / 6
            if early or len(windows) % 32 == 1:
                peak = peak_of(process.pid)
                sizes = [peak if early else sizes[0], max(peak, sizes[1])]
    if process.returncode:
        raise SystemExit(f"timeline ended with {process.returncode}")
    return windows, time.perf_counter() - start, [size / MIB for size in sizes]


def peak_of(pid: int) -> float:
    """Resident memory in bytes, of a process and its children, each at its peak so far; 0 once it has ended."""
    try:
        return sum(memory(each)[0] for each in (pid, *descendants(pid)))
    except (OSError, RuntimeError):  # a process that has ended has no such lines
        return 0


def f1(found: Sequence[float], true: Sequence[float]) -> float:
    """Of boundaries in seconds, ascending: each found one takes the nearest true one that is left and near."""
    left, right = list(true), 0
    for moment in found:
        nearest = min(left, key=lambda other: abs(other - moment), default=None)
        if nearest is not None and abs(nearest - moment) <= NEAR:
            left.remove(nearest)
            right += 1
    return 2 * right / (len(found) + len(true)) if found or true else 1.0


def measure(row: Row, options: Namespace) -> Sequence[str]:
    seconds, times = (4, 2) if options.quick else (60 * row.minutes, row.times)
    with TemporaryDirectory() as folder:
        part, video = Path(folder) / "part.mp4", Path(folder) / "film.mp4"
        parts = write_film(part, seconds, row.width, row.height)
        repeat(video, part, times)
        duration = seconds * times
        truth = [(start + seconds * number, name) for number in range(times) for start, name in parts]
        # Where the film begins again with what it ended with, nothing changes but the picture.
        truth = [this for before, this in zip([(0.0, ""), *truth], truth, strict=False) if this[1] != before[1]]
        decoding = decode(video)
        windows, taken, (early, late) = label(video, duration)
    smoothed, plain = segments(windows, 1.0), segments(windows, 0.0)
    true = [start for start, _ in truth[1:]]
    ends = [*true, duration]
    same = sum(
        max(0.0, min(part.end, end) - max(part.start, start))
        for part in smoothed
        for (start, name), end in zip(truth, ends, strict=True)
        if part.label == name
    )
    return [
        str(len(windows)),
        f"{taken:.0f}",
        f"{decoding:.0f}",
        f"{decoding / taken:.2f}",
        f"{early:.0f}",
        f"{late:.0f}",
        *(f"{f1([part.start for part in parts[1:]], true):.2f}" for parts in (smoothed, plain)),
        f"{same / duration:.1%}",
    ]


def estimate(row: Row, options: Namespace) -> float:
    return row.minutes * 60 * (0.3 + row.times * 0.15) * row.width / 640


TABLE = Table("timelines", COLUMNS, ROWS, measure, estimate)

if __name__ == "__main__":
    run(__doc__, [TABLE], rounds=1)
