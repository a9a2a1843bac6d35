"""How long a step of train.py takes on this machine, and what of it makes clips: to choose its --steps and batch size.

python examples/camera_motion/time_training.py sources.pt --batch-size 256 512 --attention plain fused
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from bank import load_bank
from clips import make_batch
from tiny_model import build
from train import Run, parse


def seconds(call: Callable[[int], object], device: torch.device, rounds: int) -> float:
    """Mean time of call(i), after two for warming up."""
    started = 0.0
    for i in range(rounds + 2):
        if i == 2:
            if device.type == "cuda":
                torch.cuda.synchronize()
            started = time.perf_counter()
        call(i)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - started) / rounds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", type=Path)
    parser.add_argument("--batch-size", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--attention", nargs="+", default=["plain", "fused"], choices=["plain", "fused", "compiled"])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--most", type=int)
    own = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = True
    bank = load_bank(own.sources, own.device, own.most)
    for size in own.batch_size:
        made = seconds(lambda i, size=size: make_batch(bank, size, i), bank.device, own.rounds)
        print(f"batch {size}: clips {1e3 * made:.1f} ms", flush=True)
        batch = make_batch(bank, size, 0)
        for how in own.attention:
            line = [
                "",
                "--out",
                "unused",
                "--device",
                own.device,
                "--attention",
                "plain" if how == "plain" else "fused",
            ]
            args = parse([*line, "--compile"] if how == "compiled" else line)
            run = Run(build("divided", args.model, 0), args)
            step = seconds(
                lambda i, run=run, batch=batch: run.update(batch.clips, batch.targets, batch.weights, 1e-3),
                bank.device,
                own.rounds,
            )
            memory = torch.cuda.max_memory_allocated() / 2**30 if bank.device.type == "cuda" else 0
            print(f"batch {size}: {how} attention, update {1e3 * step:.1f} ms, memory {memory:.1f} GiB", flush=True)


if __name__ == "__main__":
    main()
