"""Whether an explanation points at what the model uses: deletion and insertion curves.

    python benchmarks/faithfulness.py --videos clips/ --figure docs/figures/faithfulness.png --write

A map ranks the patches of a clip. Deletion hides them, the highest first, and the probability of the label should fall
fast; insertion shows them on a clip of which all is hidden, and it should rise fast. The figures are the areas under
these curves, means over clips ± their standard error: of deletion the lower the better, of insertion the higher. What
is hidden has the mean colour ("grey"), or is blurred so that a patch has about one colour ("blur"). A method is of use
if it does better than patches in random order and than patches by their distance from the centre of the frame.

--videos is a folder of labelled videos: with a folder per class, or with --annotations, a list of path, label and, for
parts of a video, start and end. Clips that the model gets wrong are left out. Without --videos: generated clips.
Petsiuk, Das, Saenko, "RISE", BMVC 2018, arXiv 1806.07421, section 4.
"""

from __future__ import annotations

import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from results import Table, run
from torch import nn

from timesformer_zoo import (
    TimeSformer,
    VideoDataset,
    clip_spec,
    gradients,
    integrated_gradients,
    load_model,
    model_labels,
    read_videos,
    relevance,
    rollout,
)

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "camera_motion"))

from synthetic_protocol import LABELS, CameraMotion, textures

EMBEDDED = "timesformer_tiny_divided.camera_motion"
POINTS = 13  # of a curve, from no patch to all
RANDOM = 3  # orders, whose curves are averaged
CURVES: dict[str, dict[str, torch.Tensor]] = {}  # row -> "deletion, grey" … -> (POINTS,), for the figure

Explain = Callable[[nn.Module, torch.Tensor, int], torch.Tensor]  # model, clip, class -> maps (N, T, h, w) of one clip


def random_order(model: nn.Module, clip: torch.Tensor, index: int) -> torch.Tensor:
    return torch.rand(RANDOM, *grid(model, clip), generator=torch.Generator().manual_seed(0))


def centre_first(model: nn.Module, clip: torch.Tensor, index: int) -> torch.Tensor:
    """By nearness to the centre of the frame; patches equally near, in random order."""
    frames, h, w = grid(model, clip)
    y, x = torch.arange(h) - (h - 1) / 2, torch.arange(w) - (w - 1) / 2
    nearness = -(y[:, None] ** 2 + x**2).expand(frames, h, w)
    return (nearness + 1e-3 * random_order(model, clip, index)[0])[None]


ROWS: dict[str, Explain] = {
    "relevance": relevance,
    "rollout": lambda model, clip, _: rollout(model, clip),
    "gradients": gradients,
    "integrated gradients": integrated_gradients,
    "random": random_order,
    "centre": centre_first,
}
HIDE: dict[str, Callable[[torch.Tensor, int], torch.Tensor]] = {  # a clip (1, C, T, H, W), the side of a patch
    "grey": lambda clip, side: torch.zeros_like(clip),
    "blur": lambda clip, side: blurred(clip, side),
}
KINDS = [f"{curve}, {hidden}" for hidden in HIDE for curve in ("deletion", "insertion")]
COLUMNS = (*KINDS, "clips", "ms a clip")


def blurred(clip: torch.Tensor, side: int) -> torch.Tensor:
    """Each frame by a Gaussian whose standard deviation is a patch's side."""
    reach = torch.arange(-2 * side, 2 * side + 1).float()
    weights = torch.exp(-(reach**2) / (2 * side**2))
    weights = (weights / weights.sum()).view(1, 1, -1)
    x = clip.flatten(0, 2)[:, None]  # (B·C·T) 1 H W
    for axes in ((2, 3), (3, 2)):
        x = x.movedim(axes[0], -1)
        lines = F.pad(x.flatten(0, 2)[:, None], (2 * side, 2 * side), mode="replicate")
        x = F.conv1d(lines, weights).view(x.shape).movedim(-1, axes[0])
    return x.view(clip.shape)


def grid(model: nn.Module, clip: torch.Tensor) -> tuple[int, int, int]:
    return (clip.shape[2], *model.patch_grid(clip.shape[3], clip.shape[4]))  # type: ignore[operator]


@torch.no_grad()
def curve(model: TimeSformer, top: torch.Tensor, below: torch.Tensor, order: torch.Tensor, index: int) -> torch.Tensor:
    """Probability of a class as patches of `top` give way to those of `below`, in an order: (POINTS,).

    Args:
        top, below: clips (1, C, T, H, W).
        order: (T·h·w,), the number of each patch.
    """
    frames, h, w = grid(model, top)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order))
    counts = torch.linspace(0, len(order), POINTS).round()
    gone = (rank[None] < counts[:, None]).view(POINTS, 1, frames, h, w).float()
    rows, columns = model.patch_size
    gone = gone.repeat_interleave(rows, -2).repeat_interleave(columns, -1)
    clips = top * (1 - gone) + below * gone
    together = POINTS if clips[0].numel() < 2**18 else 1
    return torch.cat([model(part).softmax(-1)[:, index] for part in clips.split(together)])


def measure(explain: Explain, options: Namespace) -> Sequence[str]:
    model, clips = load(options)
    curves: dict[str, list[torch.Tensor]] = {kind: [] for kind in KINDS}
    seconds = 0.0
    for clip, index in clips:
        begin = time.perf_counter()
        maps = explain(model, clip, index)
        seconds += time.perf_counter() - begin
        for name, hide in HIDE.items():
            hidden = hide(clip, model.patch_size[0])
            orders = [values.flatten().argsort(descending=True, stable=True) for values in maps]
            for kind, top, below in (("deletion", clip, hidden), ("insertion", hidden, clip)):
                found = torch.stack([curve(model, top, below, order, index) for order in orders])
                curves[f"{kind}, {name}"].append(found.mean(0))
    row = next(name for name, entry in ROWS.items() if entry is explain)
    CURVES[row] = {kind: torch.stack(several).mean(0) for kind, several in curves.items()}
    cells = []
    for several in curves.values():
        areas = torch.trapezoid(torch.stack(several), dx=1 / (POINTS - 1))
        cells.append(f"{areas.mean():.3f} ± {areas.std() / len(areas) ** 0.5:.3f}")
    return [*cells, str(len(clips)), f"{1000 * seconds / len(clips):.0f}"]


def load(options: Namespace) -> tuple[TimeSformer, list[tuple[torch.Tensor, int]]]:
    return _load(options.model, options.videos, options.annotations, tuple(options.without), options.quick)


@lru_cache
def _load(
    name: str, folder: Path | None, annotations: Path | None, without: tuple[str, ...], quick: bool
) -> tuple[TimeSformer, list[tuple[torch.Tensor, int]]]:
    """The model, and the clips (1, C, T, H, W) whose class it gets right."""
    model = load_model(name)
    names = model_labels(model)
    found = list(generated(1 if quick else 3) if folder is None else filmed(model, folder, annotations))
    with torch.no_grad():
        right = [(clip, names.index(label)) for clip, label in found if names[int(model(clip).argmax())] == label]
    kept = [(clip, index) for clip, index in right if names[index] not in without]
    left = f", {len(kept)} without {' and '.join(without)}" if without else ""
    print(f"{len(found)} clips, {len(right)} of them right{left}", file=sys.stderr)
    return model, kept[:2] if quick else kept


def generated(batches: int) -> list[tuple[torch.Tensor, str]]:
    """Clips of camera motion over procedural textures."""
    data = CameraMotion(textures(16, 2_000), 2 * len(LABELS), batches, 2_000, augment=False)
    found = []
    for i in range(batches):
        clips, labels, *_ = data[i]
        found += [(clip[None], LABELS[label]) for clip, label in zip(clips, labels.tolist(), strict=True)]
    return found


def filmed(model: TimeSformer, folder: Path, annotations: Path | None) -> list[tuple[torch.Tensor, str]]:
    """The centre crop of each video or part of one, its frames taken evenly from all of it."""
    spec = replace(clip_spec(model), sampling="uniform", clips=1, crops=1)
    videos = read_videos("list" if annotations else "folder", folder, annotations=annotations)
    return [
        (item.clips, videos.label(videos.samples[item.sample]))
        for item in map(VideoDataset(videos, spec).__getitem__, range(len(videos.samples)))
        if item.clips is not None
    ]


def draw(path: Path) -> None:
    """The curves that were measured."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6.4), layout="constrained")
    styles = dict(zip(ROWS, ("-", "-", "-", "-", "--", ":"), strict=True))
    for axes, kind in zip(figure.subplots(2, 2, sharex=True, sharey=True).flat, KINDS, strict=True):
        for row, curves in CURVES.items():
            area = float(torch.trapezoid(curves[kind], dx=1 / (POINTS - 1)))
            colour = {"random": "black", "centre": "grey"}.get(row)
            shown = torch.linspace(0, 100, POINTS)
            axes.plot(shown, curves[kind], styles[row], color=colour, label=f"{row} {area:.3f}")
        axes.set_title(kind, fontsize=11)
        axes.legend(fontsize=8)
        axes.grid(alpha=0.3)
        axes.set(ylim=(0, 1), xlim=(0, 100))
    figure.supxlabel("patches taken away, or shown, of the highest value first (%)")
    figure.supylabel("probability of the label")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def estimate(explain: Explain, options: Namespace) -> float:
    return 60.0 * (RANDOM if explain is random_order else 1)


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--videos", type=Path, help="a folder of labelled videos (default: generated clips)")
    parser.add_argument("--annotations", type=Path, help="their list: path,label,start,end")
    parser.add_argument("--model", default=EMBEDDED, help="default: %(default)s")
    parser.add_argument("--without", action="append", default=[], metavar="LABEL", help="leave out a class; repeatable")
    parser.add_argument("--figure", type=Path, metavar="FILE", help="draw the curves")


TABLE = Table("faithfulness", COLUMNS, ROWS, measure, estimate)


def main(argv: Sequence[str] | None = None) -> None:
    parser = ArgumentParser(add_help=False)
    add_arguments(parser)
    figure = parser.parse_known_args(argv)[0].figure
    run(__doc__, [TABLE], argv, rounds=1, add_arguments=add_arguments)
    if figure:
        draw(figure)


if __name__ == "__main__":
    main()
