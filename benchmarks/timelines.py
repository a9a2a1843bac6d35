"""Long videos through the whole command `timeline`, with the embedded model: speed, memory, and where it sees changes.

    python benchmarks/timelines.py --write

The videos are made here, as `motion_film.py` says: pictures under a virtual camera, H.264 at 25 frames a second. Some
minutes are drawn, and their packets repeated to the length of the row. "Decoding alone" is the same decoder's, of the
frames that windows need, to RGB, by as many threads as there are cores, with nothing done to them; the command's time
has Python's start and imports. CPU times are of all processes, and count where others use the machine, too. Memory is
that of all the command's processes at their peaks, when a sixth of the video has been seen, and at its end.

F1 of boundaries: one is where a segment ends and the next begins; a segment called "cut" is one, at its middle. A found
one is right if a true one lies within 0.5 s; each true one counts once.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hour import repeat
from measuring import MIB, descendants, memory
from motion_film import write_film
from results import Table, run

from timesformer_zoo import Prediction, Score, Segment, Video, frame_indices, segments
from timesformer_zoo.prediction import Windows

MODEL = "timesformer_tiny_divided.camera_motion"
NEAR = 0.5  # seconds


@dataclass(frozen=True)
class Row:
    """A film: how much of it is drawn, and how often."""

    width: int
    height: int
    minutes: int
    times: int
    precision: str = "float32"


ROWS = {
    "an hour, 640 x 360": Row(640, 360, 5, 12),
    "ten minutes, 1280 x 720": Row(1280, 720, 1, 10),
    "twenty minutes, 1920 x 1080": Row(1920, 1080, 1, 20),
    "twenty minutes, 1920 x 1080, bfloat16": Row(1920, 1080, 1, 20, "bfloat16"),
}
COLUMNS = (
    "windows", "s", "decoding alone, s", "of decoding's speed", "of its CPU time",
    "after a sixth, MiB", "at the end, MiB",
    "F1 of boundaries", "without smoothing", "right labels, of the time",
)  # fmt: skip


def decode(path: Path) -> tuple[float, float]:
    """Seconds, and of CPU time, that the frames of the command's windows take."""
    windows = Windows(MODEL, path, 1, None, overlap=0.5)
    offsets = frame_indices(windows.spec, windows.length, windows.video.fps)
    needed = {start + offset for start in windows.starts for offset in offsets}
    begin, busy = time.perf_counter(), time.process_time()
    for _ in Video(path).stream(needed):
        pass
    return time.perf_counter() - begin, time.process_time() - busy


def label(video: Path, duration: float, precision: str) -> tuple[list[Prediction], float, float, list[float]]:
    """The windows that the command prints, its time, its CPU time, and its memory after a sixth and at the end."""
    command = [sys.executable, "-m", "timesformer_zoo_cli", "timeline", str(video), "--device", "cpu", "--json"]
    command += ["--precision", precision]
    windows: list[Prediction] = []
    sizes = [0.0, 0.0]
    start, before = time.perf_counter(), children_seconds()
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
    taken = time.perf_counter() - start
    return windows, taken, children_seconds() - before, [size / MIB for size in sizes]


def children_seconds() -> float:
    """CPU time of processes that ended, and of those that they waited for."""
    times = os.times()
    return times.children_user + times.children_system


def boundaries(parts: Sequence[Segment]) -> list[float]:
    """In seconds, ascending: ends that are another's start, and the middles of cuts instead of their ends."""
    found = []
    for before, after in pairwise(parts):
        if after.label == "cut":
            found.append((after.start + after.end) / 2)
        elif before.label != "cut":
            found.append(after.start)
    return found


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
        decoding, decoding_busy = decode(video)
        windows, taken, busy, (early, late) = label(video, duration, row.precision)
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
        f"{decoding_busy / busy:.2f}",
        f"{early:.0f}",
        f"{late:.0f}",
        *(f"{f1(boundaries(parts), true):.2f}" for parts in (smoothed, plain)),
        f"{same / duration:.1%}",
    ]


def estimate(row: Row, options: Namespace) -> float:
    return row.minutes * 60 * (0.3 + row.times * 0.15) * row.width / 640


TABLE = Table("timelines", COLUMNS, ROWS, measure, estimate)

if __name__ == "__main__":
    run(__doc__, [TABLE], rounds=1)
