"""The forward pass beside what a user would take instead: time, working memory, share of the machine's own rate.

    python benchmarks/forward.py --write                 all rows
    python benchmarks/forward.py --rows 'hr*' --write    some
    python benchmarks/forward.py --product plain         with torch's own product, whatever this machine would choose

Both run the same random weights on the same input in one process, in turns; their logits are compared first. Working
memory (the peak less weights and input) is taken in a process of its own for each.

The share of the rate is the operations of the forward pass, attention's included, over its time, over the same quotient
of its linear layers as single products of equal shapes, in the same turns. "Products alone" is the time that all its
products take by themselves, each at the rate of its own shape, over the time of the whole.
"""

from __future__ import annotations

import statistics
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from measuring import MIB, in_fresh_process, ratio, seconds, working_memory
from peers import Case, build, clip, largest_difference, warm_up
from products import Replay, expected_seconds, operations
from results import Table, run

from timesformer_zoo.model import inference


@dataclass(frozen=True)
class Row:
    """A case and what is asked of it (None: nothing)."""

    case: Case
    faster: float | None = None  # than the peer, at least
    memory: float | None = None  # of the peer's, at most
    share: float | None = None  # of the rate, at least
    mib: int | None = None  # working memory, at most


BASE = Case("base_divided", 8, 224)
BF16 = replace(BASE, dtype=torch.bfloat16)
ROWS = {
    "base divided 8x224": Row(BASE, faster=1.12, share=0.9),
    "hr divided 16x448": Row(Case("hr_divided", 16, 448), faster=2.0, memory=0.4, share=0.85),
    "l divided 96x224": Row(Case("l_divided", 96, 224), faster=1.5, memory=0.7, share=0.85),
    "base joint 16x224": Row(Case("base_joint", 16, 224), faster=1.5, memory=0.3),
    "base joint 96x224": Row(Case("base_joint", 96, 224, peer=None), mib=2048),
    "base space_only 8x224": Row(Case("base_space_only", 8, 224, peer="timm")),
    "base joint 8x224": Row(Case("base_joint", 8, 224)),
    "base local_global 8x224": Row(Case("base_local_global", 8, 224, peer=None)),
    "base axial 8x224": Row(Case("base_axial", 8, 224, peer=None)),
    "base divided 8x224, batch 4": Row(replace(BASE, batch=4)),
    "base divided 8x224, bfloat16": Row(BF16),
    "base divided 8x224, compiled": Row(replace(BASE, compiled=True)),
    "base divided 8x224, bfloat16, compiled": Row(replace(BF16, compiled=True)),
    "tiny divided 8x64": Row(Case("tiny_divided", 8, 64)),
    "tiny divided 8x64, batch 32": Row(Case("tiny_divided", 8, 64, batch=32)),
}
COLUMNS = ("peer", "ours, s", "peer, s", "times faster", "ours, MiB", "peer, MiB", "share of its memory",
           "share of the rate", "products alone", "logits differ by")  # fmt: skip


def force(product: str | None) -> None:
    """Take the "packed" product or torch's "plain" one from now on; None: what the machine is better at."""
    if product is not None:
        inference.packed_is_faster = lambda dtype: product == "packed"


@torch.inference_mode()
def memory(case: Case, who: str, product: str | None) -> int:
    """Working memory of one forward pass in bytes; runs in a fresh process."""
    force(product)
    warm_up(case)
    model, x = build(case, who), clip(case)
    if case.compiled:
        model(x)
    return working_memory(lambda: model(x))


def asked(value: float, at_least: float | None = None, at_most: float | None = None) -> str:
    """A number, and what is asked of it."""
    limits = [f"at least {at_least}"] if at_least else [f"at most {at_most}"] if at_most else []
    return " ".join([f"{value:.2f}", *(f"({limit})" for limit in limits)])


@torch.inference_mode()
def measure(row: Row, options: Namespace) -> Sequence[str]:
    force(options.product)
    case = row.case.quick() if options.quick else row.case
    names = ["ours", *([case.peer] if case.peer else [])]
    models, x = {name: build(case, name) for name in names}, clip(case)
    logits = {name: model(x) for name, model in models.items()}  # the warm-up, too
    difference = largest_difference(case, logits["ours"], logits[case.peer]) if case.peer else None
    # Only now that the compiler's cache is filled: a process that compiles counts up to twice as much
    count = memory if options.quick else partial(in_fresh_process, memory)
    memories = {name: count(case, name, options.product) for name in names}
    replay = Replay(case)
    times: dict[str, list[float]] = {name: [] for name in (*names, "linear", "products")}
    for _ in range(options.rounds):
        for name, model in models.items():
            times[name].append(seconds(lambda model=model: model(x)))
        linear, products = replay.turn()
        times["linear"].append(linear)
        times["products"].append(products)
    share = ratio(times["linear"], times["ours"]) * operations(case) / replay.linear_operations
    ours = memories["ours"]
    cells = {
        "peer": case.peer or "",
        "ours, s": f"{statistics.median(times['ours']):.3f}",
        "share of the rate": asked(share, row.share),
        "products alone": f"{ratio(times['products'], times['ours']):.2f}",
        "ours, MiB": "killed" if ours is None else f"{ours / MIB:.0f}" + (f" (at most {row.mib})" if row.mib else ""),
    }
    if case.peer:
        theirs = memories[case.peer]
        cells |= {
            "peer, s": f"{statistics.median(times[case.peer]):.3f}",
            "times faster": asked(ratio(times[case.peer], times["ours"]), row.faster),
            "peer, MiB": "killed" if theirs is None else f"{theirs / MIB:.0f}",
            "share of its memory": asked(ours / theirs, at_most=row.memory) if ours and theirs else "",
            "logits differ by": f"{difference:.1e}",
        }
    return [cells.get(column, "") for column in COLUMNS]


def estimate(row: Row, options: Namespace) -> float:
    once = expected_seconds(row.case)
    turn = once * (2 + (1.8 if row.case.peer else 0))  # ours, the products, the peer
    return turn * (options.rounds + 2) + 30 + (300 if row.case.compiled else 0)


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--product", choices=("packed", "plain"), help="default: the one the machine is better at")


TABLE = Table("forward", COLUMNS, ROWS, measure, estimate)

if __name__ == "__main__":
    run(__doc__, [TABLE], rounds=5, add_arguments=add_arguments)
