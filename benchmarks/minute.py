"""The paper's claim, measured: clips of over a minute. Read, classified and trained on, by frames and by mode.

    python benchmarks/minute.py --threads 1 --write
    python benchmarks/minute.py --threads 1 --rows '96 frames, divided'

A clip is every 32nd frame at 30 a second, as in the paper's table 8: 96 frames are 102.4 s. The file (340 x 256, H.264)
is made here. The training step is checkpointed. Seconds and memory are as in claims.py; reading's are of all threads.
"""

from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import loader
from claims import ENOUGH, Cost, add_arguments, cost, forward_pass, training_step
from measuring import MIB, in_fresh_process
from peers import Case, build, warm_up
from products import expected_seconds
from results import Table, run

from timesformer_zoo import clip_spec, clip_transform, read_clip

STRIDE, FPS = 32, 30


@dataclass(frozen=True)
class Row:
    """A clip of every 32nd frame."""

    mode: str
    frames: int
    top1: float | None = None  # % of HowTo100M, published (arXiv 2102.05095, table 8)


HOWTO100M = {8: 56.8, 32: 61.2, 64: 62.2, 96: 62.6}
ROWS = {f"{t} frames, divided": Row("divided", t, top1) for t, top1 in HOWTO100M.items()} | {
    f"{t} frames, {mode}": Row(mode, t)
    for t in (8, 32, 96)
    for mode in ("space_only", "joint", "local_global", "axial")
}
COLUMNS = ("a clip's span, s", "read, s", "read, MiB", "classify, s", "classify, MiB", "a step, s", "a step, MiB",
           "HowTo100M top-1, %, published")  # fmt: skip


@cache
def film(frames: int) -> tuple[TemporaryDirectory[str], Path]:
    """A video that a clip of as many frames fits in, and its folder, which is there as long as this process is."""
    folder = TemporaryDirectory()
    row = loader.Row(training=False, films=("bikes",), each=1)
    (path,) = loader.write_files(row, Path(folder.name), math.ceil(STRIDE * frames / FPS))
    return folder, path


def read_classify_train(case: Case, path: Path, rounds: int, device: str) -> tuple[Cost, Cost, Cost]:
    """Of one clip; runs in a fresh process. The training step is checkpointed."""
    warm_up(case)
    model = build(case, "ours", device=device)
    spec = replace(clip_spec(model), num_frames=case.frames, stride=STRIDE)
    reading = cost(lambda: read_clip(path, spec), rounds, "cpu")
    x = clip_transform(spec)(read_clip(path, spec))[None].to(device)
    classifying = cost(forward_pass(model, x), rounds, device)
    del model
    model = build(replace(case, checkpointing=True), "ours", True, device)
    return reading, classifying, cost(training_step(model, x), rounds, device)


def measure(row: Row, options: Namespace) -> Sequence[str]:
    case = Case(f"base_{row.mode}", row.frames, 224)
    case = case.quick() if options.quick else case
    path = film(case.frames if options.quick else max(HOWTO100M))[1]
    arguments = (case, path, options.rounds, options.device)
    costs = read_classify_train(*arguments) if options.quick else in_fresh_process(read_classify_train, *arguments)
    figures = [text for each in costs for text in (f"{each.seconds:.3g}", f"{each.memory / MIB:.0f}")] if costs else []
    figures = figures or ["killed", *[""] * 5]
    return [f"{row.frames * STRIDE / FPS:.1f}", *figures, f"{row.top1}" if row.top1 else ""]


def estimate(row: Row, options: Namespace) -> float:
    once = expected_seconds(Case(f"base_{row.mode}", row.frames, 224), 0.5 if row.mode == "joint" else 0.8)
    turns = 1 + (options.rounds if once < ENOUGH else 0)
    return 20 + once * turns + 4 * once * (1 if 4 * once > ENOUGH else turns)


TABLE = Table("minute", COLUMNS, ROWS, measure, estimate, short=("96 frames, divided",))

if __name__ == "__main__":
    run(__doc__, [TABLE], rounds=3, add_arguments=add_arguments)
