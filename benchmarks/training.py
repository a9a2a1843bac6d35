"""A training step beside transformers': time, and memory of the activations, with and without checkpointing.

    python benchmarks/training.py --write

A step is forward, cross-entropy, backward and SGD. The activations' memory is the peak of what torch's allocator has
given out in forward and backward, less weights, gradients and input, in a process of its own. "Checkpointing" is
set_grad_checkpointing() here and gradient_checkpointing_enable() there; both recompute each block in the backward pass.
First the logits and the gradient of the patch embedding are compared. bfloat16 is autocast's; the weights stay float32.
"""

from __future__ import annotations

import statistics
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from forward import asked
from measuring import MIB, allocated_memory, in_fresh_process, in_turns, ratio
from peers import Case, build, clip, largest_difference, warm_up
from products import expected_seconds
from results import Table, run
from torch import nn


@dataclass(frozen=True)
class Row:
    """One model trained here, and there if transformers has it."""

    ours: Case
    theirs: Case | None = None
    memory: float | None = None  # of theirs, at most


def row(case: Case, ours: bool, theirs: bool, memory: float | None = None) -> Row:
    """A case with and without checkpointing, here and there."""
    return Row(replace(case, checkpointing=ours), replace(case, checkpointing=theirs), memory)


BASE, TINY = Case("base_divided", 8, 224), Case("tiny_divided", 8, 64, batch=32)
TINY_COMPILED, BASE_BF16 = replace(TINY, compiled=True), replace(BASE, dtype=torch.bfloat16)
HR, LONG = Case("hr_divided", 16, 448), Case("l_divided", 96, 224)
ROWS = {
    "base 8x224, ours checkpointed": row(BASE, True, False, memory=0.25),
    "base 8x224, neither": row(BASE, False, False),
    "base 8x224, both checkpointed": row(BASE, True, True),
    "base 8x224, batch 4, both checkpointed": row(replace(BASE, batch=4), True, True),
    "hr 16x448, both checkpointed": row(HR, True, True),
    "l 96x224, both checkpointed": row(LONG, True, True),
    "tiny 8x64, batch 32, neither": row(TINY, False, False),
    "tiny 8x64, batch 32, compiled, neither": row(TINY_COMPILED, False, False),
    "base 8x224, bfloat16, neither": row(BASE_BF16, False, False),
    "base joint 8x224, neither": row(Case("base_joint", 8, 224), False, False),
    "base space_only 8x224, without checkpointing": Row(Case("base_space_only", 8, 224)),
    "base local_global 8x224, without checkpointing": Row(Case("base_local_global", 8, 224)),
    "base axial 8x224, without checkpointing": Row(Case("base_axial", 8, 224)),
}
COLUMNS = ("ours, s", "transformers, s", "times faster", "ours, MiB", "transformers, MiB", "share of its memory",
           "logits differ by")  # fmt: skip


def backward(model: nn.Module, x: torch.Tensor, autocast: torch.dtype | None = None) -> torch.Tensor:
    """Forward, in `autocast` if one is given, and backward; the logits."""
    with torch.autocast(x.device.type, autocast, enabled=autocast is not None):
        logits = model(x)
    F.cross_entropy(logits.float(), torch.arange(len(x), device=x.device) % logits.shape[1]).backward()
    return logits.detach()


def autocast_of(case: Case) -> torch.dtype | None:
    """Weights and input are float32; another number format is autocast's."""
    return None if case.dtype == torch.float32 else case.dtype


def step(model: nn.Module, x: torch.Tensor, autocast: torch.dtype | None = None) -> Callable[[], None]:
    """A training step, to be called."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)

    def one() -> None:
        optimizer.zero_grad()
        backward(model, x, autocast)
        optimizer.step()

    return one


def memory(case: Case, who: str) -> int:
    """Bytes of activations; runs in a fresh process."""
    warm_up(case)
    model, x = build(case, who, training=True), clip(case).float()
    if case.compiled:
        backward(model, x, autocast_of(case))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    return allocated_memory(lambda: backward(model, x, autocast_of(case)))


def measure(row: Row, options: Namespace) -> Sequence[str]:
    cases = {"ours": row.ours, **({"transformers": row.theirs} if row.theirs else {})}
    if options.quick:
        cases = {who: replace(case.quick(), compiled=False) for who, case in cases.items()}
    models = {who: build(case, who, training=True) for who, case in cases.items()}
    x, autocast = clip(cases["ours"]).float(), autocast_of(row.ours)
    logits = {who: backward(model, x, autocast) for who, model in models.items()}
    first = {who: next(p for n, p in model.named_parameters() if "patch_embed" in n and n.endswith("weight")).grad
             for who, model in models.items()}  # fmt: skip
    difference = largest_difference(row.ours, logits["ours"], logits["transformers"]) if row.theirs else 0.0
    if row.theirs and autocast is None:
        torch.testing.assert_close(first["ours"], first["transformers"], rtol=1e-3, atol=1e-5)
    # Only now that the compiler's cache is filled: a process that compiles counts up to twice as much
    count = memory if options.quick else partial(in_fresh_process, memory)
    memories = {who: count(case, who) for who, case in cases.items()}
    times = in_turns({who: step(model, x, autocast) for who, model in models.items()}, options.rounds)
    ours = memories["ours"]
    cells = {"ours, s": f"{statistics.median(times['ours']):.3f}", "ours, MiB": size(ours)}
    if row.theirs:
        theirs = memories["transformers"]
        cells |= {
            "transformers, s": f"{statistics.median(times['transformers']):.3f}",
            "times faster": asked(ratio(times["transformers"], times["ours"])),
            "transformers, MiB": size(theirs),
            "share of its memory": asked(ours / theirs, at_most=row.memory) if ours and theirs else "",
            "logits differ by": f"{difference:.1e}",
        }
    return [cells.get(column, "") for column in COLUMNS]


def size(memory: int | None) -> str:
    """Bytes as MiB."""
    return "killed" if memory is None else f"{memory / MIB:.0f}"


def estimate(row: Row, options: Namespace) -> float:
    cases = [(row.ours, 0.8), *([(row.theirs, 0.45)] if row.theirs else [])]
    turn = sum(expected_seconds(case, share) * (4 if case.checkpointing else 3) for case, share in cases)
    return 30 + turn * (options.rounds + 2) + (300 if row.ours.compiled else 0)


TABLE = Table("training", COLUMNS, ROWS, measure, estimate)

if __name__ == "__main__":
    run(__doc__, [TABLE], rounds=3)
