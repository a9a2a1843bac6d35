"""Two checkouts of this repository against each other: time in turns, peak memory, bytes that copies write.

    python benchmarks/compare.py BEFORE AFTER
    python benchmarks/compare.py BEFORE AFTER --rows 'base*' --rounds 9 --device cuda

BEFORE and AFTER are folders of checkouts. Each runs in processes of its own, with the same weights and the same input;
the two take turns, A B A B, and what is printed is the median of the ratios of each turn.
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import subprocess
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

ROWS: dict[str, dict[str, Any]] = {
    "base divided forward": dict(model="base_divided"),
    "base space_only forward": dict(model="base_space_only"),
    "base local_global forward": dict(model="base_local_global"),
    "base axial forward": dict(model="base_axial"),
    "base joint 16 forward": dict(model="base_joint", frames=16),
    "hr divided forward": dict(model="hr_divided"),
    "l divided forward": dict(model="l_divided"),
    "tiny divided batch 32 forward": dict(model="tiny_divided", batch=32),
    "base divided training": dict(model="base_divided", training=True),
    "base axial training": dict(model="base_axial", training=True),
    "base local_global training": dict(model="base_local_global", training=True),
    "base joint training": dict(model="base_joint", training=True),
}
REPEATS = {"cpu": 1, "cuda": 10}
"""Runs of which one time is taken: a GPU is done too soon for one alone."""


class Run:
    """One row in one checkout: a call to measure."""

    def __init__(self, case: dict[str, Any], device: str) -> None:
        import timm
        import torch

        import timesformer_zoo  # noqa: F401  (registers the models)

        sizes = {"num_frames": case["frames"]} if "frames" in case else {}
        self.device, self.training = device, case.get("training", False)
        dtype = torch.bfloat16 if device == "cuda" else torch.float32
        torch.manual_seed(0)
        model: Any = timm.create_model(f"timesformer_{case['model']}", **sizes).to(device)
        self.model = model.train() if self.training else model.eval().fuse().to(dtype)
        shape = (case.get("batch", 8 if device == "cuda" else 1), 3, model.num_frames, *model.img_size)
        self.x = torch.randn(shape, device=device, dtype=torch.float32 if self.training else dtype)
        self()

    def __call__(self) -> None:
        import torch

        for _ in range(REPEATS[self.device]):
            if not self.training:
                with torch.inference_mode():
                    self.model(self.x)
                continue
            with torch.autocast(self.device, torch.bfloat16, enabled=self.device == "cuda"):
                loss = self.model(self.x).float().logsumexp(-1).sum()
            loss.backward()
            self.model.zero_grad(set_to_none=True)

    def time(self) -> float:
        """Seconds of a run."""
        from measuring import seconds

        return seconds(self, self.device) / REPEATS[self.device]

    def memory(self) -> float:
        """Peak of what torch has allocated beyond what it had before, in MiB: the same in every run."""
        import torch
        from torch.profiler import ProfilerActivity, profile

        if self.device == "cuda":
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            self()
            return (torch.cuda.max_memory_allocated() - before) / 2**20
        torch.autograd._profiler_enabled = lambda: False  # or it would run other products than it does without
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            self()
        events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
        sizes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
        return max(itertools.accumulate(sizes)) / 2**20

    def copied(self) -> float:
        """What copies, concatenations and clones write in a forward pass with a gradient, in MiB."""
        from torch.utils._python_dispatch import TorchDispatchMode

        total = 0

        class Count(TorchDispatchMode):
            def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                nonlocal total
                out = func(*args, **(kwargs or {}))
                if func.overloadpacket.__name__ in {"copy_", "cat", "clone", "_to_copy", "constant_pad_nd"}:
                    total += out.numel() * out.element_size()
                return out

        with Count():
            self.model(self.x)
        return total / 2**20


def worker(device: str) -> None:
    """Answers each line of stdin, a row and what is asked of it, with a line of JSON."""
    run, row = None, ""
    for line in sys.stdin:
        wanted, what = line.rstrip("\n").split("\t")
        if wanted != row:
            run, row = None, wanted  # the last one's memory first
            run = Run(ROWS[row], device)
        print(json.dumps(getattr(run, what)()), flush=True)


class Worker:
    """One checkout's process."""

    def __init__(self, checkout: Path, device: str) -> None:
        path = {"PYTHONPATH": f"{checkout / 'src'}:{Path(__file__).parent}", "PYTHONWARNINGS": "ignore"}
        command = [sys.executable, __file__, "--worker", "--device", device]
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.process: Any = subprocess.Popen(command, env={**os.environ, **path}, **pipes)

    def ask(self, row: str, what: str) -> float:
        self.process.stdin.write(f"{row}\t{what}\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer.startswith(("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")):
            raise SystemExit(f"{row}, {what}: a process failed; run it with --worker to see why")
        return float(answer)


def measure(row: str, workers: list[Worker], rounds: int) -> list[str]:
    times = [[worker.ask(row, "time") for worker in workers] for _ in range(rounds + 1)][1:]
    before, after = (statistics.median(turn) for turn in zip(*times, strict=True))
    ratio = statistics.median(new / old for old, new in times)
    memory = [worker.ask(row, "memory") for worker in workers]
    copied = [worker.ask(row, "copied") for worker in workers]
    cells = [f"{1e3 * before:.4g}", f"{1e3 * after:.4g}", f"{ratio:.3f}"]
    for old, new in (memory, copied):
        cells += [f"{old:.1f}", f"{new:.1f}", f"{new / old:.3f}"]
    return cells


def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, nargs="?")
    parser.add_argument("after", type=Path, nargs="?")
    parser.add_argument("--rows", default="*", help="names of rows, with * and ?")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--worker", action="store_true", help="for internal use")
    args = parser.parse_args()
    if args.worker:
        worker(args.device)
        return
    workers = [Worker(checkout.resolve(), args.device) for checkout in (args.before, args.after)]
    columns = ["case", "ms before", "after", "ratio", "MiB before", "after", "ratio", "copied before", "after", "ratio"]
    print("| " + " | ".join(columns) + " |\n" + "| --- " * len(columns) + "|", flush=True)
    for row in ROWS:
        if fnmatchcase(row, args.rows):
            print("| " + " | ".join([row, *measure(row, workers, args.rounds)]) + " |", flush=True)


if __name__ == "__main__":
    main()
