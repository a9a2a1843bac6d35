"""The paper's claim, measured: faster to train than 3D convolutional networks, dramatically cheaper to test.

    python benchmarks/claims.py --threads 1 --write
    python benchmarks/claims.py --device cuda --out claims.json   on a GPU; not for RESULTS.md

Each model is run at the protocol by which its published accuracy was reached. Weights are random: times and memory do
not depend on them, and accuracies are the published ones. TFLOPs are 10^12 multiply-adds of convolutions, linear layers
and attention, of all views of a video, as the papers count them. Seconds are those of one view, in turns with base's,
times the views; on a CPU, seconds of CPU time, so that others who work on the machine hardly matter: with one thread,
what it takes where nobody does. Memory is that of one view and of one training step (forward, backward, SGD, one clip),
less weights, gradients and input, in a process of its own. I3D and SlowFast, the paper's own peers, need pytorchvideo.
"""

from __future__ import annotations

import importlib.util
import math
import statistics
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from measuring import MIB, in_fresh_process, seconds, working_memory
from peers import Case, build, warm_up
from products import expected_seconds, operations
from results import Table, run
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from training import backward

from timesformer_zoo import TimeSformer

ENOUGH = 5.0  # seconds of a first call, after which turns would only take time: that call counts
TERA = 1e12
Create = Callable[[bool, str], nn.Module]  # (for training?, device) -> (B, C, T, H, W) -> logits (B, 400)


def ours(case: Case, training: bool, device: str) -> nn.Module:
    return build(case, "ours", training, device)


def of_torchvision(name: str, training: bool, device: str) -> nn.Module:
    from torchvision.models import get_model

    with torch.device(device):
        return get_model(name, weights=None).train(training)


def of_pytorchvideo(name: str, training: bool, device: str) -> nn.Module:
    from pytorchvideo.models import hub

    with torch.device(device):
        model = getattr(hub, name)(pretrained=False)
        return (Pathways(model) if name.startswith("slowfast") else model).train(training)


def videomae(training: bool, device: str) -> nn.Module:
    with torch.device(device):
        return VideoMAE().train(training)


class Pathways(nn.Module):
    """SlowFast on one clip: all of its frames are the fast pathway's, every fourth is the slow one's."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model([x[:, :, ::4], x])


class VideoMAE(nn.Module):
    """transformers' VideoMAE, base, with our input and output."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import VideoMAEConfig, VideoMAEForVideoClassification

        self.model = VideoMAEForVideoClassification(VideoMAEConfig(num_labels=400))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(pixel_values=x.transpose(1, 2)).logits


@dataclass(frozen=True)
class Entry:
    """A model, and the protocol of its published accuracy."""

    create: Create
    frames: int  # of a clip
    size: int  # pixels a side, of a view
    views: tuple[int, int]  # of a video: clips, crops
    top1: float  # % of Kinetics-400, published
    tflops: float | None  # of a video, published
    trained: int | None  # clips of each video that are trained on, published; less pretraining
    source: str  # of the three
    crop: int | None = None  # pixels a side in training, where it is another
    smallest: tuple[int, int] | None = None  # frames and pixels a side that it takes, too; None: no others
    needs: str = "torchvision"  # this package
    case: Case | None = None  # of ours

    def clip(self, device: str, size: int | None = None) -> torch.Tensor:
        return torch.randn(1, 3, self.frames, size or self.size, size or self.size, device=device)

    def quick(self) -> Entry:
        """The same in tiny, if it can be."""
        if self.case:
            return of_ours(self.case.quick(), self.top1, self.tflops)
        return replace(self, frames=self.smallest[0], size=self.smallest[1]) if self.smallest else self


def of_ours(case: Case, top1: float, tflops: float | None) -> Entry:
    source = "arXiv 2102.05095, tables 2 and 5; its released checkpoints' accuracy"
    return Entry(partial(ours, case), case.frames, case.size, (1, 3), top1, tflops, 15, source, case=case)


BASE = of_ours(Case("base_divided", 8, 224), 77.9, 0.59)
TV, PTV = partial(partial, of_torchvision), partial(partial, of_pytorchvideo)
ZOO = dict(source="pytorchvideo's and PySlowFast's model zoos", crop=224, needs="pytorchvideo")
R3D = dict(source="torchvision's weights and README", smallest=(2, 32))
SWIN = dict(source="torchvision's weights; arXiv 2106.13230", smallest=(4, 64))
ENTRIES = {
    "TimeSformer base": BASE,
    "TimeSformer hr": of_ours(Case("hr_divided", 16, 448, checkpointing=True), 79.6, 5.11),
    "TimeSformer l": of_ours(Case("l_divided", 96, 224, checkpointing=True), 80.6, 7.14),
    "I3D R50 8x8": Entry(PTV("i3d_r50"), 8, 256, (10, 3), 73.27, 1.11, 196, **ZOO),
    "SlowFast R50 8x8": Entry(PTV("slowfast_r50"), 32, 256, (10, 3), 76.94, 1.97, 196, **ZOO),
    "R3D-18": Entry(TV("r3d_18"), 16, 112, (5, 1), 63.2, 5 * 0.040697, 45 * 5, **R3D),
    "S3D": Entry(TV("s3d"), 128, 224, (1, 1), 68.368, None, None, "torchvision's weights"),
    "MViTv2-S": Entry(
        TV("mvit_v2_s"), 16, 224, (5, 1), 80.757, 5 * 0.064, 2 * 200, "torchvision's weights; PySlowFast"
    ),
    "Swin3D-T": Entry(TV("swin3d_t"), 32, 224, (12, 1), 77.715, 12 * 0.088, 30, **SWIN),
    "Swin3D-B": Entry(TV("swin3d_b"), 32, 224, (12, 1), 79.427, 12 * 0.282, 30, **SWIN),
    "VideoMAE base": Entry(
        videomae, 16, 224, (5, 3), 80.9, 15 * 0.18, 100, "its model zoo and FINETUNE.md", needs="transformers"
    ),
}
COLUMNS = ("a view", "clips x crops", "K400 top-1, %", "TFLOPs, published", "TFLOPs, counted", "parameters, M",
           "a video, s", "times base's", "a view, MiB", "a step, s", "step, times base's", "a step, MiB",
           "clips trained on", "training, times base's", "published by")  # fmt: skip


def multiply_adds(entry: Entry, device: str = "meta") -> int:
    """Of one view, as the papers count: the whole network, also what our inference does without."""
    model = entry.create(False, device) if entry.case is None else build(entry.case, "ours", True, device).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        if isinstance(model, TimeSformer):  # for the logits alone the last block leaves out the patches
            model.forward_head(model.forward_features(entry.clip(device)))
        else:
            model(entry.clip(device))
    return counter.get_total_flops() // 2


def parameters(entry: Entry) -> int:
    return sum(parameter.numel() for parameter in entry.create(True, "meta").parameters())


def training_step(model: nn.Module, x: torch.Tensor) -> Callable[[], None]:
    """A step to be called. Gradients are there before it, so that its working memory is that of activations."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter).fill_(1e-9)  # written to, so that it is in memory

    def step() -> None:
        optimizer.zero_grad(set_to_none=False)
        backward(model, x)
        optimizer.step()

    return step


@dataclass(frozen=True)
class Cost:
    """Of a call: seconds, bytes of working memory, and its time as a multiple of base's."""

    seconds: float
    memory: int
    times: float = math.nan


def spent(call: Callable[[], object], device: str) -> float:
    """Seconds of a call: of CPU time, of all threads; of a GPU, of the clock."""
    if device != "cpu":
        return seconds(call, device)
    start = time.process_time()
    call()
    return time.process_time() - start


def cost(call: Callable[[], object], rounds: int, device: str, base: Callable[[], object] = lambda: None) -> Cost:
    """Memory at the first call; then its time in turns with base's, or, if it took long enough, that of the first."""
    first: list[float] = []
    memory = working_memory(lambda: first.append(spent(call, device)), device)
    if first[0] >= ENOUGH:
        return Cost(first[0], memory, first[0] / spent(base, device))
    base()  # the warm-up
    turns = [(spent(call, device), spent(base, device)) for _ in range(rounds)]
    return Cost(statistics.median(its for its, _ in turns), memory, statistics.median(its / b for its, b in turns))


def view_and_step(entry: Entry, base: Entry, rounds: int, device: str) -> tuple[Cost, Cost]:
    """Of a view classified and a clip trained on; runs in a fresh process."""
    warm_up(BASE.case)  # type: ignore[arg-type]

    def of(training: bool) -> Cost:
        prepare = training_step if training else forward_pass
        call, other = [
            prepare(each.create(training, device), each.clip(device, each.crop if training else None))
            for each in (entry, base)
        ]
        return cost(call, rounds, device, other)

    return of(training=False), of(training=True)


def forward_pass(model: nn.Module, x: torch.Tensor) -> Callable[[], torch.Tensor]:
    return torch.inference_mode()(lambda: model(x))


def measure(entry: Entry, options: Namespace) -> Sequence[str]:
    if importlib.util.find_spec(entry.needs) is None:
        return [f"not measured: pip install {entry.needs}", *[""] * (len(COLUMNS) - 1)]
    if options.quick:
        entry = entry.quick()
    base = BASE.quick() if options.quick else BASE
    clips, crops = entry.views
    views = clips * crops
    arguments = (entry, base, options.rounds, options.device)
    costs = view_and_step(*arguments) if options.quick else in_fresh_process(view_and_step, *arguments)
    counted = f"{views * multiply_adds(entry) / TERA:.3g}"
    if entry.case:  # what is run of it
        counted += f" ({views * operations(entry.case) / 2 / TERA:.3g} run)"
    cells = {
        "a view": f"{entry.frames}x{entry.size}",
        "clips x crops": f"{clips}x{crops}",
        "K400 top-1, %": f"{entry.top1:.1f}",
        "TFLOPs, published": f"{entry.tflops:.3g}" if entry.tflops else "",
        "TFLOPs, counted": counted,
        "parameters, M": f"{parameters(entry) / 1e6:.1f}",
        "clips trained on": str(entry.trained or ""),
        "published by": entry.source,
    }
    if costs is None:
        return [(cells | {"a video, s": "killed"}).get(column, "") for column in COLUMNS]
    view, step = costs
    checkpointed = " (checkpointed)" if entry.case and entry.case.checkpointing else ""
    cells |= {
        "a video, s": f"{views * view.seconds:.3g}",
        "times base's": f"{view.times * views / math.prod(base.views):.2f}",
        "a view, MiB": f"{view.memory / MIB:.0f}",
        "a step, s": f"{step.seconds:.3g}" + checkpointed,
        "step, times base's": f"{step.times:.2f}",
        "a step, MiB": f"{step.memory / MIB:.0f}" + checkpointed,
        "training, times base's": f"{step.times * entry.trained / 15:.1f}" if entry.trained else "",
    }
    return [cells.get(column, "") for column in COLUMNS]


def estimate(entry: Entry, options: Namespace) -> float:
    def calls(each: Entry) -> float:  # seconds of a view and of a step, at half the rate of base's
        rate = operations(BASE.case) / expected_seconds(BASE.case) / (1 if each.case else 2)  # type: ignore[arg-type]
        once = 2 * multiply_adds(each) / rate
        return once * (5 if each.case and each.case.checkpointing else 4)

    if importlib.util.find_spec(entry.needs) is None:
        return 0.0
    turns = options.rounds if calls(entry) < 4 * ENOUGH else 0
    return 15 + calls(entry) * (1 + turns) + calls(BASE) * (2 + turns)


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--device", default="cpu", help="cpu (default), or cuda, which --out can write")


TABLE = Table("claims", COLUMNS, ENTRIES, measure, estimate, short=("TimeSformer base", "SlowFast R50 8x8", "R3D-18"))

if __name__ == "__main__":
    run(__doc__, [TABLE], rounds=3, add_arguments=add_arguments)
