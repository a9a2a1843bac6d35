"""Time and memory of a call, measured so that two implementations can be compared on a machine that others use, too.

Times of several functions are taken in turns, A B A B, and compared by the median of the ratios of each turn: what
slows the machine down for a while slows both. Memory is taken in a process of its own, from the system's own count.
"""

from __future__ import annotations

import ctypes
import gc
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from itertools import accumulate
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.profiler import ProfilerActivity, profile

__all__ = [
    "allocated_memory",
    "cpu_seconds",
    "descendants",
    "in_fresh_process",
    "in_turns",
    "memory",
    "ratio",
    "seconds",
    "working_memory",
]

Result = TypeVar("Result")
MIB = 2**20
TICK = 1 / os.sysconf("SC_CLK_TCK")  # s, of the system's count of CPU time


def seconds(function: Callable[[], Any], device: str = "cpu") -> float:
    """How long a call takes, to the end of what it started on the device."""
    wait = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    wait()
    start = time.perf_counter()
    function()
    wait()
    return time.perf_counter() - start


def in_turns(functions: Mapping[str, Callable[[], Any]], rounds: int, device: str = "cpu") -> dict[str, list[float]]:
    """Seconds of each function in each of `rounds` turns, A B C A B C …; the caller has warmed them up."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            times[name].append(seconds(function, device))
    return times


def ratio(over: Sequence[float], under: Sequence[float]) -> float:
    """Median of the ratios of two functions' times, turn by turn."""
    return statistics.median(a / b for a, b in zip(over, under, strict=True))


def working_memory(function: Callable[[], Any], device: str = "cpu") -> int:
    """Bytes that a call needs at its peak beyond what is in memory before it (weights, gradients, input).

    On a CPU this is the growth of the process's resident memory, so the process should be a fresh one. Linux only.
    """
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # what was freed but kept would hide as much of the call's memory
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before = _status("VmRSS")
    function()
    return _status("VmHWM") - before


def allocated_memory(function: Callable[[], Any], device: str = "cpu") -> int:
    """Bytes of tensors that a call holds at its peak beyond those before it, as torch's allocator counts them.

    What the C library keeps for later is not counted, which `working_memory` sees and which differs from run to run;
    nor is what is no tensor. It takes up to twice the time. A call that looks for profilers should not be counted so.
    """
    if device.startswith("cuda"):
        return working_memory(function, device)
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiler:
        function()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    return max(accumulate((event.nbytes() for event in events), initial=0))


def _status(field: str, file: str = "/proc/self/status") -> int:
    """A size from a file of /proc, in bytes."""
    lines = Path(file).read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024


def descendants(pid: int | None = None) -> list[int]:
    """The processes that one (None: this one) started, that those started, and so on, parents first. Linux only."""
    found = [os.getpid() if pid is None else pid]
    for parent in found:  # which grows
        for file in Path(f"/proc/{parent}/task").glob("*/children"):
            with suppress(OSError):  # it has just ended
                found += map(int, file.read_text().split())
    return found[1:]


def cpu_seconds(pids: Iterable[int] | None = None) -> float:
    """CPU time so far of some processes, with that of children that ended; None: of this one and its descendants."""
    ticks = 0
    for pid in [os.getpid(), *descendants()] if pids is None else pids:
        with suppress(OSError):
            ticks += sum(map(int, _fields(Path(f"/proc/{pid}/stat"))[11:15]))
    return ticks * TICK


def _fields(stat: Path) -> list[str]:
    """Of /proc/PID/stat, from the third on, which follow the program's name in brackets."""
    return stat.read_text().rpartition(")")[2].split()


def memory(pid: int) -> tuple[int, int]:
    """Resident memory of a process in bytes: (its peak, what it has written and shares with no other, now)."""
    return _status("VmHWM", f"/proc/{pid}/status"), _status("Private_Dirty", f"/proc/{pid}/smaps_rollup")


def in_fresh_process(function: Callable[..., Result], *args: Any) -> Result | None:
    """`function(*args)` in a new interpreter with as many threads as here; None if it was killed for want of memory.

    Args:
        function: of a module's top level, and its arguments picklable.
    """
    start = dict(initializer=torch.set_num_threads, initargs=(torch.get_num_threads(),))
    try:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn"), **start) as pool:
            return pool.submit(function, *args).result()
    except BrokenProcessPool:
        print(f"{function.__name__}{args}: the process was killed; most likely memory ran out", file=sys.stderr)
        return None
