"""Where the time of our forward pass goes, by torch's profiler.

    python benchmarks/hotspots.py --write

Shares of the forward pass's time on the CPU, each operation without what it calls: the eight largest, and the rest.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence

import torch
from peers import Case, build, clip
from products import expected_seconds
from results import Table, run
from torch.profiler import ProfilerActivity, profile

LARGEST = 8
ROWS = {
    "base divided 8x224": Case("base_divided", 8, 224),
    "hr divided 16x448": Case("hr_divided", 16, 448),
    "l divided 96x224": Case("l_divided", 96, 224),
    "base joint 16x224": Case("base_joint", 16, 224),
    "base axial 8x224": Case("base_axial", 8, 224),
    "base divided 8x224, bfloat16": Case("base_divided", 8, 224, dtype=torch.bfloat16),
    "tiny divided 8x64": Case("tiny_divided", 8, 64),
}


@torch.inference_mode()
def measure(case: Case, options: Namespace) -> Sequence[str]:
    case = case.quick() if options.quick else case
    model, x = build(case, "ours"), clip(case)
    model(x)
    with profile(activities=[ProfilerActivity.CPU], acc_events=True) as profiler:
        model(x)
    spent = sorted(profiler.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in spent)
    largest = [
        f"{event.key.removeprefix('aten::').lstrip('_')} {event.self_cpu_time_total / total:.1%}"
        for event in spent[:LARGEST]
    ]
    rest = sum(event.self_cpu_time_total for event in spent[LARGEST:]) / total
    return [f"{total / 1e6:.3f}", ", ".join(largest), f"{rest:.1%}"]


def estimate(case: Case, options: Namespace) -> float:
    return 5 + 2 * expected_seconds(case)


TABLE = Table("hotspots", ("s", "operations and their share", "rest"), ROWS, measure, estimate)

if __name__ == "__main__":
    run(__doc__, [TABLE])
