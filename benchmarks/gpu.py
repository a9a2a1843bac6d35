"""On a GPU: forward pass and training step, eager and compiled, beside transformers; and what they are made of.

    python benchmarks/gpu.py --write                            every table, by one command
    python benchmarks/gpu.py --short --out gpu.json             what matters most, in some six minutes
    python benchmarks/gpu.py --tables gpu --rows 'base*'        a part of it
    python benchmarks/gpu.py --from gpu.json --write            what was measured elsewhere
    python benchmarks/gpu.py --device cpu --quick --eager-only  does it run?

Beside transformers: weights are bfloat16 in inference; in training they are float32 under autocast, and the optimizer
is SGD. All four run in turns on the same weights and input, and their logits are compared. The share of the rate is the
operations (three forward passes' in training) over the time, over the quotient of the linear layers alone, in the same
turns. Memory is the peak less weights, gradients and input. Nothing is checkpointed.

A way that fails or runs out of memory says so in its cell, and the others go on.
"""

from __future__ import annotations

import statistics
import sys
import traceback
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial, wraps
from typing import Any

import torch
import torch.nn.functional as F
from forward import asked
from measuring import MIB, in_turns, ratio, seconds, working_memory
from peers import Case, build, clip, create, largest_difference
from products import Replay, operations
from results import Table, run
from torch._dynamo.utils import counters
from torch.profiler import ProfilerActivity, profile
from training import backward, step

from timesformer_zoo.model import kernel

ASKED = {"eager": 1.8, "compiled": 1.5}  # times faster than transformers, at least
ASKED_TRAINING = {"eager": 1.5, "compiled": None}
BF16 = torch.bfloat16


def say(error: BaseException) -> str:
    """An error in a cell; its traceback goes to the terminal."""
    if isinstance(error, torch.OutOfMemoryError):
        torch.cuda.empty_cache()
        return "out of memory"
    traceback.print_exception(error, limit=-3, file=sys.stderr)
    return type(error).__name__ + ": " + str(error).strip().split("\n")[0].replace("|", "/")[:100]


def survives(measure: Callable[[Any, Namespace], dict[str, str]], columns: Sequence[str]) -> Callable[..., list[str]]:
    """A row's cells in the order of the columns; of a row that fails, the error."""

    @wraps(measure)
    def cells(row: Any, options: Namespace) -> list[str]:
        torch.compiler.reset()  # after a few models the compiler would give up on recompiling the same code
        try:
            found = measure(row, options)
        except Exception as error:
            found = {columns[0]: say(error)}
        return [found.get(column, "") for column in columns]

    return cells


# ---- beside transformers ----


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
        replace(case, batch=batch, dtype=BF16), training
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
COMPILED_IN_SHORT = ("base divided 8x224, batch 8, forward", "base divided 8x224, batch 8, training")
SHORT = (*COMPILED_IN_SHORT, "hr divided 16x448, batch 8, forward", "base joint 16x224, batch 8, forward")


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


def beside(row: Row, options: Namespace) -> dict[str, str]:
    eager_only = options.eager_only or (options.short and row not in [ROWS[name] for name in COMPILED_IN_SHORT])
    row = replace(row, case=row.case.quick()) if options.quick else row
    device, case = options.device, row.case
    cells: dict[str, str] = {}
    calls: dict[str, Callable[[], object]] = {}
    logits: dict[str, torch.Tensor] = {}
    for way, (who, compiled) in WAYS.items():
        if (who != "ours" and case.peer is None) or (compiled and eager_only):
            continue
        try:
            function, logits[way] = prepare(row, who, compiled, device)
            cells[f"{way}, MiB"] = f"{working_memory(function, device) / MIB:.0f}"
            calls[way] = function
        except Exception as error:
            cells[f"{way}, clips/s"] = say(error)
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
            cells[f"share of the rate, {how}"] = asked(share, 0.5 if row.training else None)
        if ours in times and theirs in times:
            at_least = (ASKED_TRAINING if row.training else ASKED)[how]
            cells[f"times faster, {how}"] = asked(ratio(times[theirs], times[ours]), at_least)
    others = [other for way, other in logits.items() if way != "ours" and "ours" in logits]
    try:
        if differences := [largest_difference(case, logits["ours"], other) for other in others]:
            cells["logits differ by"] = f"{max(differences):.1e}"
    except AssertionError as error:
        cells["logits differ by"] = say(error)
    return cells


# ---- each mode: that it compiles, and how exact it is ----

MODES = ("divided", "joint", "axial", "local_global", "space_only")
MODE_COLUMNS = (
    "compiled forward and backward",
    "another batch",
    "graphs of four batch sizes",
    *(f"{what}, {dtype}" for dtype in ("float32", "bfloat16", "float16") for what in ("logits off by", "gradient by")),
    "by torch's own attention: logits, gradient, bfloat16",
)


@contextmanager
def no_kernel() -> Any:
    """Attention by torch's own operators."""
    tiles = dict(kernel.TILES)
    kernel.TILES.clear()
    try:
        yield
    finally:
        kernel.TILES.update(tiles)


def outputs(model: torch.nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, and the gradients of all parameters, on the CPU in double precision."""
    model.zero_grad()
    logits = model(x)
    logits.square().sum().backward()
    gradient = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    return logits.detach().double().cpu(), gradient.double().cpu()


def mode_row(mode: str, options: Namespace) -> dict[str, str]:
    """Of two blocks, eight frames, heads of 64."""
    device, cells = options.device, {}
    case = Case(f"base_{mode}", 8, 64, batch=2)
    sizes = dict(embed_dim=128, num_heads=2, depth=2, num_classes=16)
    exact = create(case, "cpu", sizes).double().train()
    x = clip(case).double()
    expected = outputs(exact, x)

    def errors(dtype: torch.dtype) -> list[str]:
        model = create(case, "cpu", sizes).train().to(device, dtype)
        found = outputs(model, x.to(device, dtype))
        return [
            f"{float((ours - right).norm() / right.norm()):.1e}" for ours, right in zip(found, expected, strict=True)
        ]

    for dtype in (torch.float32, BF16, torch.float16):
        name = str(dtype).removeprefix("torch.")
        cells[f"logits off by, {name}"], cells[f"gradient by, {name}"] = errors(dtype)
    with no_kernel():
        cells[MODE_COLUMNS[-1]] = ", ".join(errors(BF16))
    if options.eager_only:
        return cells
    model = create(case, "cpu", sizes).train().to(device)
    compiled = torch.compile(model, fullgraph=True)

    def train(batch: int) -> float:
        clips = clip(replace(case, batch=batch), device).float()
        taken = seconds(lambda: backward(compiled, clips, BF16), device)
        with torch.autocast(clips.device.type, BF16):
            ours, plain = compiled(clips).detach().float(), model(clips).detach().float()
        assert (ours - plain).norm() < 0.03 * plain.norm(), "compiled logits differ"
        return taken

    before = counters["stats"]["unique_graphs"]
    for column, batches in {MODE_COLUMNS[0]: (2,), MODE_COLUMNS[1]: (3,), MODE_COLUMNS[2]: (5, 8)}.items():
        try:
            cells[column] = f"ok, {sum(train(batch) for batch in batches):.0f} s"
        except Exception as error:
            cells[column] = say(error)
            return cells
    cells[MODE_COLUMNS[2]] = str(counters["stats"]["unique_graphs"] - before)
    return cells


# ---- attention over few tokens ----

TOKENS = {
    f"{dtype}, {tokens} tokens": (dtype, tokens)
    for dtype, many in {"bfloat16": (8, 16, 32, 64, 96, 128), "float32": (8, 16, 32, 64)}.items()
    for tokens in many
}
ATTENTION_WAYS = ("fused", "two products", "kernel")
ATTENTION_COLUMNS = (
    *(f"{way}, ms" for way in ATTENTION_WAYS),
    *(f"{way}, with gradient, ms" for way in ATTENTION_WAYS),
    "kernel off by",
    "its gradient by",
)


def attention_row(row: tuple[str, int], options: Namespace) -> dict[str, str]:
    """1,568 groups, 12 heads of 64: eight clips of base. Fused and plain have each group's tokens side by side."""
    device, heads, (name, tokens) = options.device, 12, row
    dtype, clips, places = getattr(torch, name), 8, 196
    if options.quick:
        clips, places = 1, 3

    def fused(qkv: torch.Tensor) -> torch.Tensor:
        q, k, v = qkv.flatten(0, 1).unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)

    def plain(qkv: torch.Tensor) -> torch.Tensor:
        q, k, v = qkv.flatten(0, 1).unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        return ((q * q.shape[-1] ** -0.5 @ k.mT).softmax(-1) @ v).transpose(1, 2).flatten(2)

    def own(qkv: torch.Tensor) -> torch.Tensor:
        return kernel._attention(qkv, heads)

    shapes = {fused: (clips, places, tokens), plain: (clips, places, tokens), own: (clips, tokens, places)}
    cells: dict[str, str] = {}
    for way, (function, shape) in zip(ATTENTION_WAYS, shapes.items(), strict=True):
        if function is own and dtype in kernel.TILES and tokens > kernel.TILES[dtype][2]:
            continue
        try:
            qkv = torch.randn(*shape, 3 * heads * 64, device=device, dtype=dtype, requires_grad=True)
            with torch.no_grad():
                grad = torch.randn_like(function(qkv))
                cells[f"{way}, ms"] = f"{many(partial(function, qkv), device):.3f}"
            train = partial(lambda f, x, g: torch.autograd.grad(f(x), x, g), function, qkv, grad)
            cells[f"{way}, with gradient, ms"] = f"{many(train, device):.3f}"
            if function is own:
                some, its = qkv[:1].detach().double().cpu(), grad[:1].double().cpu()
                for column, found, right in (
                    ("kernel off by", function(qkv)[:1], kernel._plain(some, heads)),
                    ("its gradient by", train()[0][:1], kernel._plain_backward(its, some, heads)),
                ):
                    cells[column] = f"{float((found.detach().double().cpu() - right).norm() / right.norm()):.1e}"
        except Exception as error:
            cells[f"{way}, ms"] = say(error)
    return cells


def many(function: Callable[[], object], device: str, times: int = 50) -> float:
    """Milliseconds of a call, of many one after the other."""
    times = times if device.startswith("cuda") else 1
    function()
    return 1000 * min(seconds(lambda: [function() for _ in range(times)], device) for _ in range(3)) / times


# ---- one clip, and what is launched ----

ONE_WAYS = {"eager": None, "compiled": "default", "compiled, reduce-overhead": "reduce-overhead"}
ONE_ROWS = {"base divided 8x224, batch 1, bfloat16": Case("base_divided", 8, 224, dtype=BF16)}


def one_row(case: Case, options: Namespace) -> dict[str, str]:
    case, cells = case.quick() if options.quick else case, {}
    x, calls = clip(case, options.device), {}
    model = build(case, "ours", device=options.device)
    for way, mode in ONE_WAYS.items():
        if mode and options.eager_only:
            continue
        try:
            function = torch.compile(model, mode=mode) if mode else model
            with torch.inference_mode():
                for _ in range(3):  # a CUDA graph is recorded in the second call
                    function(x)
            calls[way] = torch.inference_mode()(partial(function, x))
        except Exception as error:
            cells[f"{way}, ms"] = say(error)
    for way, times in in_turns(calls, 5 * options.rounds, options.device).items():
        cells[f"{way}, ms"] = f"{1000 * statistics.median(times):.2f}"
    return cells


LAUNCH_ROWS = {
    f"{way}, {'training' if training else 'forward'}": (*WAYS[way], training)
    for way in WAYS
    for training in (False, True)
}
LAUNCHES_IN_SHORT = tuple(row for row in LAUNCH_ROWS if row != "transformers, compiled, training")
LAUNCH_COLUMNS = ("wall, ms", "until all is queued, ms", "kernels, ms", "launches", "largest, ms")


def launch_row(row: tuple[str, bool, bool], options: Namespace) -> dict[str, str]:
    """Of base divided 8x224, batch 8."""
    who, compiled, training = row
    case = Case("base_divided", 8, 224, batch=8, dtype=BF16)
    case = case.quick() if options.quick else case
    if compiled and options.eager_only:
        return {}
    call, _ = prepare(Row(case, training), who, compiled, options.device)
    gpu = options.device.startswith("cuda")
    wall = statistics.median(seconds(call, options.device) for _ in range(options.rounds))
    queued = []
    for _ in range(options.rounds):
        seconds(lambda: queued.append(seconds(call)), options.device)
    with profile(activities=[ProfilerActivity.CUDA if gpu else ProfilerActivity.CPU], acc_events=True) as profiler:
        seconds(call, options.device)
    spent: dict[str, float] = {}
    launches = 0
    for event in profiler.events():
        if (not gpu or event.device_type == torch.autograd.DeviceType.CUDA) and "Optimizer" not in event.name:
            launches += 1
            spent[event.name] = spent.get(event.name, 0.0) + (event.device_time if gpu else event.self_cpu_time_total)
    largest = sorted(spent.items(), key=lambda item: -item[1])[:14]
    return {
        "wall, ms": f"{1000 * wall:.1f}",
        "until all is queued, ms": f"{1000 * statistics.median(queued):.1f}",
        "kernels, ms": f"{sum(spent.values()) / 1000:.1f}",
        "launches": str(launches),
        "largest, ms": "; ".join(f"{short(name)} {time / 1000:.2f}" for name, time in largest),
    }


def short(name: str) -> str:
    """A kernel's name without what would break the table."""
    return name.replace("void ", "").replace("at::native::", "").replace("|", "/")[:70]


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--device", default="cuda", help="default: cuda")
    parser.add_argument("--eager-only", action="store_true", help="leave out the compiled ways")


ONE_COLUMNS = tuple(f"{way}, ms" for way in ONE_WAYS)
TABLES = [
    Table(
        "gpu-attention", ATTENTION_COLUMNS, TOKENS, survives(attention_row, ATTENTION_COLUMNS), lambda *_: 5.0,
        short=tuple(TOKENS),
    ),
    Table("gpu", COLUMNS, ROWS, survives(beside, COLUMNS), lambda *_: 60.0, short=SHORT),
    Table(
        "gpu-launches", LAUNCH_COLUMNS, LAUNCH_ROWS, survives(launch_row, LAUNCH_COLUMNS), lambda *_: 15.0,
        short=LAUNCHES_IN_SHORT,
    ),
    Table("gpu-modes", MODE_COLUMNS, {mode: mode for mode in MODES}, survives(mode_row, MODE_COLUMNS), lambda *_: 30.0,
          short=MODES),
    Table("gpu-one", ONE_COLUMNS, ONE_ROWS, survives(one_row, ONE_COLUMNS), lambda *_: 40.0, short=tuple(ONE_ROWS)),
]  # fmt: skip

if __name__ == "__main__":
    run(__doc__, TABLES, rounds=10, add_arguments=add_arguments)
