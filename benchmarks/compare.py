"""Two checkouts of this repository against each other: time in turns, peak memory, and bytes that copies write.

    python benchmarks/compare.py BEFORE AFTER
    python benchmarks/compare.py BEFORE AFTER --rows 'base*' --rounds 9 --device cuda

BEFORE and AFTER are folders of checkouts. Each runs in processes of its own, with the same weights and the same input;
the two take turns, A B A B, and what is printed is the median of the ratios of each turn.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
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
QUIET = dict(OMP_NUM_THREADS=str(os.cpu_count()), PYTHONWARNINGS="ignore")


def worker(case: dict[str, Any], device: str) -> None:
    """Answers each line of stdin with a line of JSON: seconds of a run, the peak of its memory, or the bytes copied."""
    import timm
    import torch
    from measuring import seconds, working_memory

    import timesformer_zoo  # noqa: F401  (registers the models)

    sizes = {"num_frames": case["frames"]} if "frames" in case else {}
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    torch.manual_seed(0)
    model = timm.create_model(f"timesformer_{case['model']}", **sizes).to(device)
    training = case.get("training", False)
    model = model.train() if training else model.eval().fuse().to(dtype)
    shape = (case.get("batch", 8 if device == "cuda" else 1), 3, model.num_frames, *model.img_size)
    x = torch.randn(shape, device=device, dtype=torch.float32 if training else dtype)

    def run() -> None:
        if not training:
            with torch.inference_mode():
                model(x)
            return
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            loss = model(x).float().logsumexp(-1).sum()
        loss.backward()
        model.zero_grad(set_to_none=True)

    def copied() -> int:
        from torch.utils._python_dispatch import TorchDispatchMode

        names = {"copy_", "cat", "clone", "_to_copy", "contiguous", "constant_pad_nd"}
        total = 0

        class Count(TorchDispatchMode):
            def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                nonlocal total
                out = func(*args, **(kwargs or {}))
                if func.overloadpacket.__name__ in names:
                    total += out.numel() * out.element_size()
                return out

        with Count():
            model(x)  # with a gradient
        return total

    answers = {"time": lambda: seconds(run, device), "memory": lambda: working_memory(run, device), "copied": copied}
    for line in sys.stdin:
        print(json.dumps(answers[line.strip()]()), flush=True)


class Worker:
    """One checkout's process."""

    def __init__(self, checkout: Path, row: str, device: str) -> None:
        environment = {**os.environ, **QUIET, "PYTHONPATH": f"{checkout / 'src'}:{Path(__file__).parent}"}
        command = [sys.executable, __file__, "--worker", row, "--device", device]
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, what: str) -> float:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        return float(json.loads(self.process.stdout.readline()))

    def close(self) -> None:
        self.process.communicate()


def measure(row: str, args: Namespace) -> list[str]:
    checkouts = (args.before, args.after)
    memory = []
    copied = []
    for checkout in checkouts:  # a process that has run before has memory that it would not ask for again
        peaks = []
        for _ in range(args.processes):
            worker = Worker(checkout, row, args.device)
            peaks.append(worker.ask("memory"))
            worker.close()
        memory.append(statistics.median(peaks))
    workers = [Worker(checkout, row, args.device) for checkout in checkouts]
    copied = [worker.ask("copied") for worker in workers]
    times = [[worker.ask("time") for worker in workers] for _ in range(args.rounds + 1)][1:]
    for worker in workers:
        worker.close()
    before, after = (statistics.median(turn) for turn in zip(*times, strict=True))
    ratio = statistics.median(new / old for old, new in times)
    return [
        f"{before:.4g}",
        f"{after:.4g}",
        f"{ratio:.3f}",
        f"{memory[0] / 2**20:.0f}",
        f"{memory[1] / 2**20:.0f}",
        f"{memory[1] / memory[0]:.3f}",
        f"{copied[0] / 2**20:.0f}",
        f"{copied[1] / 2**20:.0f}",
    ]


def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, nargs="?")
    parser.add_argument("after", type=Path, nargs="?")
    parser.add_argument("--rows", default="*", help="names of rows, with * and ?")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=3, help="of which the median of peak memory is taken")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--worker", help="for internal use")
    args = parser.parse_args()
    if args.worker:
        worker(ROWS[args.worker], args.device)
        return
    columns = ["case", "s before", "s after", "ratio", "MiB before", "after", "ratio", "MiB copied before", "after"]
    print("| " + " | ".join(columns) + " |\n" + "| --- " * len(columns) + "|", flush=True)
    for row in ROWS:
        if fnmatchcase(row, args.rows):
            print("| " + " | ".join([row, *measure(row, args)]) + " |", flush=True)


if __name__ == "__main__":
    main()
