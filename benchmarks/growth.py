"""How time and working memory of the forward pass grow: frames, pixels, batch, modes, number format, compiler.

    python benchmarks/growth.py --write
    python benchmarks/growth.py --tables growth-frames --rows '96 *' --write

Each cell is one process: working memory (the peak less weights and input) of its first forward pass, then the median
time of the next ones; a pass of over 15 s runs once. A cell that says "killed" ran out of memory.
"""

from __future__ import annotations

import statistics
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from measuring import MIB, in_fresh_process, seconds, working_memory
from peers import Case, build, clip, warm_up
from products import expected_seconds
from results import Table, run

ENOUGH = 15.0  # seconds of measuring, after which one more pass would only take time
MODES = ("space_only", "joint", "divided", "local_global", "axial")

Cells = Mapping[str, tuple[Case, str]]  # column -> what is run, by whom


def by_mode(variant: str, frames: int, size: int, peer: bool = False, **how: object) -> Cells:
    """A row of all modes, and if asked transformers' divided one."""
    cells = {mode: (Case(f"{variant}_{mode}", frames, size, **how), "ours") for mode in MODES}  # type: ignore[arg-type]
    theirs = {"transformers, divided": (Case(f"{variant}_divided", frames, size, **how), "transformers")}  # type: ignore[arg-type]
    return cells | theirs if peer else cells


def by_format(variant: str, frames: int, size: int, batch: int = 1) -> dict[str, Cells]:
    """Rows of number formats, eager and compiled, over all modes."""
    formats = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    return {
        f"{variant} {frames}x{size}, batch {batch}, {name}, {'compiled' if compiled else 'eager'}": by_mode(
            variant, frames, size, batch=batch, dtype=dtype, compiled=compiled
        )
        for name, dtype in formats.items()
        for compiled in (False, True)
    }


GROWTH: dict[str, dict[str, Cells]] = {
    "growth-frames": {f"{t} frames of 224 px": by_mode("base", t, 224, peer=True) for t in (8, 16, 32, 64, 96, 192)},
    "growth-pixels": {f"8 frames of {s} px": by_mode("base", 8, s, peer=True) for s in (224, 288, 336, 448)},
    "growth-batch": {f"base 8x224, batch {b}": by_mode("base", 8, 224, peer=True, batch=b) for b in (1, 2, 4, 8)},
    "growth-tiny": {f"tiny 8x64, batch {b}": by_mode("tiny", 8, 64, peer=True, batch=b) for b in (1, 8, 32, 128)},
    "growth-formats": by_format("base", 8, 224) | by_format("tiny", 8, 64, batch=32),
}


@torch.inference_mode()
def time_and_memory(case: Case, who: str, rounds: int) -> tuple[float, int]:
    """Seconds and bytes of a forward pass; runs in a fresh process."""
    warm_up(case)
    model, x = build(case, who), clip(case)
    if case.compiled:
        model(x)
    first: list[float] = []
    memory = working_memory(lambda: first.append(seconds(lambda: model(x))))
    times: list[float] = []
    while len(times) < rounds and sum(first + times) < ENOUGH:
        times.append(seconds(lambda: model(x)))
    return statistics.median(times or first), memory


def measure(cells: Cells, options: Namespace) -> Sequence[str]:
    return [_cell(case, who, options) for case, who in cells.values()]


def _cell(case: Case, who: str, options: Namespace) -> str:
    result: tuple[float, int] | None
    if options.quick:
        result = time_and_memory(replace(case.quick(), compiled=False), who, options.rounds)
    else:
        for _ in range(1 + case.compiled):  # first to fill the compiler's cache: compiling blurs the count of memory
            result = in_fresh_process(time_and_memory, case, who, options.rounds)
    return f"{result[0]:.3g} s, {result[1] / MIB:.0f} MiB" if result else "killed"


def estimate(cells: Cells, options: Namespace) -> float:
    return sum(map(partial(_estimate_cell, rounds=options.rounds), cells.values()))


def _estimate_cell(cell: tuple[Case, str], rounds: int) -> float:
    case, who = cell
    once = expected_seconds(case, 0.8 if who == "ours" else 0.45)
    return 8 + once * (1 + min(rounds, ENOUGH // once)) + (90 if case.compiled else 0)


TABLES = [Table(name, tuple(next(iter(rows.values()))), rows, measure, estimate) for name, rows in GROWTH.items()]

if __name__ == "__main__":
    run(__doc__, TABLES, rounds=3)
