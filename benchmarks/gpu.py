"""On a GPU, in bfloat16: forward pass and training step, eager and compiled, beside transformers.

    python benchmarks/gpu.py --write                    the whole table, by one command
    python benchmarks/gpu.py --rows 'base*' --write     a part of it
    python benchmarks/gpu.py --device cpu --quick       does it run?

Weights are bfloat16 in inference; in training they are float32 under autocast, and the optimizer is SGD. All four run
in turns on the same weights and input, their logits are compared, and a way that runs out of memory says so. The
share of the rate is the operations (three forward passes' in training) over the time, over the quotient of the linear
layers alone, in the same turns. Memory is the peak less weights, gradients and input. Nothing is checkpointed.
"""

from __future__ import annotations

import statistics
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from forward import asked
from measuring import MIB, ratio, seconds, working_memory
from peers import Case, build, clip, largest_difference
from products import Replay, operations
from results import Table, run
from training import backward, step

ASKED = {"eager": 2.0, "compiled": 1.3}  # times faster than transformers, at least
ASKED_SHARE = 0.5  # of the rate, at least, in training


@dataclass(frozen=True)
class Row:
    """A case in bfloat16, and whether a training step or a forward pass."""

    case: Case
    training: bool


LARGE = {
    "base divided 8x224": Case("base_divided", 8, 224),
    "hr divided 16x448": Case("hr_divided", 16, 448),
    "l divided 96x224": Case("l_divided", 96, 224),
    "base joint 16x224": Case("base_joint", 16, 224),
}
ALONE = {
    f"base {mode} 8x224": Case(f"base_{mode}", 8, 224, peer=None) for mode in ("space_only", "local_global", "axial")
}
ROWS = {
    f"{name}, batch {batch}, {'training' if training else 'forward'}": Row(
        replace(case, batch=batch, dtype=torch.bfloat16), training
    )
    for name, case in (LARGE | ALONE).items()
    for batch in ((1, 8, 32) if name in LARGE else (8,))
    for training in (False, True)
}
WAYS = {
    "ours": ("ours", False),
    "ours, compiled": ("ours", True),
    "transformers": ("transformers", False),
    "transformers, compiled": ("transformers", True),
}
COLUMNS = (
    *(f"{way}, clips/s" for way in WAYS),
    *(f"{way}, MiB" for way in WAYS),
    "times faster, eager",
    "times faster, compiled",
    "share of the rate, eager",
    "share of the rate, compiled",
    "logits differ by",
)


def prepare(row: Row, who: str, compiled: bool, device: str) -> tuple[Callable[[], object], torch.Tensor]:
    """What is timed, warmed up, and the logits of the weights as they are at first."""
    case = replace(row.case, compiled=compiled)
    model, x = build(case, who, row.training, device), clip(case, device)
    if row.training:
        logits = backward(model, x.float(), autocast=case.dtype)
        train = step(model, x.float(), autocast=case.dtype)
        train()
        return train, logits.float()

    @torch.inference_mode()
    def forward() -> torch.Tensor:
        return model(x)

    return forward, forward().float()


def measure(row: Row, options: Namespace) -> Sequence[str]:
    row = replace(row, case=row.case.quick()) if options.quick else row
    device, case = options.device, row.case
    torch.compiler.reset()  # after a few models the compiler would give up on recompiling the same code
    cells: dict[str, str] = {}
    calls: dict[str, Callable[[], object]] = {}
    logits: dict[str, torch.Tensor] = {}
    for way, (who, compiled) in WAYS.items():
        if (who != "ours" and case.peer is None) or (compiled and options.eager_only):
            continue
        try:
            function, logits[way] = prepare(row, who, compiled, device)
            cells[f"{way}, MiB"] = f"{working_memory(function, device) / MIB:.0f}"
            calls[way] = function
        except torch.OutOfMemoryError:
            cells[f"{way}, MiB"] = "out of memory"
            torch.cuda.empty_cache()
    replay = Replay(case, device)
    linear: list[float] = []
    times: dict[str, list[float]] = {way: [] for way in calls}
    for _ in range(options.rounds):
        for way, function in calls.items():
            times[way].append(seconds(function, device))
        linear.append(replay.turn()[0])
    for way in calls:
        cells[f"{way}, clips/s"] = f"{case.batch / statistics.median(times[way]):.1f}"
    for how, suffix in {"eager": "", "compiled": ", compiled"}.items():
        ours, theirs = f"ours{suffix}", f"transformers{suffix}"
        if ours in times:
            done = (3 if row.training else 1) * operations(case, fused=not row.training)
            share = ratio(linear, times[ours]) * done / replay.linear_operations
            cells[f"share of the rate, {how}"] = asked(share, ASKED_SHARE if row.training else None)
        if ours in times and theirs in times:
            cells[f"times faster, {how}"] = asked(ratio(times[theirs], times[ours]), ASKED[how])
    others = [other for way, other in logits.items() if way != "ours" and "ours" in logits]
    if differences := [largest_difference(case, logits["ours"], other) for other in others]:
        cells["logits differ by"] = f"{max(differences):.1e}"
    return [cells.get(column, "") for column in COLUMNS]


def estimate(row: Row, options: Namespace) -> float:
    return 150.0  # two compilations, most of it


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--device", default="cuda", help="default: cuda")
    parser.add_argument("--eager-only", action="store_true", help="leave out the compiled ways")


TABLE = Table("gpu", COLUMNS, ROWS, measure, estimate)

if __name__ == "__main__":
    run(__doc__, [TABLE], rounds=10, add_arguments=add_arguments)
