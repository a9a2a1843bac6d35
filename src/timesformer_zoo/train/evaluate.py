"""Evaluation: test views, protocols and metrics, over any number of processes with no sample counted twice.

Legend: B videos, V views, C channels, T frames, H W pixels, K classes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from rich.console import Console
from rich.progress import track
from torch import nn

from timesformer_zoo.data.batches import OnError, VideoDataset, Where, make_loader, shares, with_views
from timesformer_zoo.data.videos import VideoList
from timesformer_zoo.prediction import fuse_views, inference
from timesformer_zoo.video.clip import clip_spec
from timesformer_zoo.video.remote import shown
from timesformer_zoo.writing import whole_file, write_json

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["PROTOCOLS", "Evaluation", "Protocol", "evaluate", "mean_of", "plot_confusion"]


@dataclass(frozen=True)
class Protocol:
    """Where test clips are in a video, and how views become one prediction."""

    where: Where
    fuse: str | None  # "logits" (their sum), "softmax" (its mean), None: as the model's spec says
    about: str


PROTOCOLS: dict[str, Protocol] = {
    "model": Protocol("start", None, "as the model's ClipSpec says, and as predict does"),
    "official": Protocol("start", "logits", "the authors' code: clips from frame 0, sum of the logits"),
    "paper": Protocol("middle", "softmax", "the paper's text: clip in the middle, mean of the softmax"),
}


@dataclass(frozen=True)
class Evaluation:
    """The scores of one model on one split. Shares are from 0 to 1."""

    data: str
    split: str
    fold: str | None
    protocol: str
    clips: int
    crops: int
    classes: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]  # [label][prediction], number of samples
    top1: float
    top5: float | None  # None for 5 classes or fewer, where it says nothing
    skipped: dict[str, str] = field(default_factory=dict)  # path -> why it could not be read; not in any number above
    missing: tuple[str, ...] = ()  # likewise

    @property
    def count(self) -> int:
        """Samples that the scores are over."""
        return sum(map(sum, self.confusion))

    @property
    def per_class(self) -> dict[str, float | None]:
        """Top-1 accuracy of each class; None for a class without samples."""
        rows = zip(self.classes, self.confusion, strict=True)
        return {name: row[i] / sum(row) if sum(row) else None for i, (name, row) in enumerate(rows)}

    @property
    def mean_class_accuracy(self) -> float:
        """Mean over the classes that have samples."""
        known = [value for value in self.per_class.values() if value is not None]
        return sum(known) / len(known)

    @property
    def metrics(self) -> dict[str, float]:
        """The scores, by the names that the Hub has for them."""
        named = {"accuracy": self.top1, "top_5_accuracy": self.top5, "mean_class_accuracy": self.mean_class_accuracy}
        return {name: value for name, value in named.items() if value is not None}

    def to_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        scores = {"count": self.count, "mean_class_accuracy": self.mean_class_accuracy, "per_class": self.per_class}
        return {**vars(self), **scores}

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write results.json and, where matplotlib is installed, confusion.png.

        Raises:
            WriteError: the disk is full, or the folder read-only.
        """
        folder = Path(folder)
        write_json(folder / "results.json", self.to_dict())
        try:
            plot_confusion(self, folder / "confusion.png")
        except ModuleNotFoundError as error:
            if error.name != "matplotlib":
                raise

    def summary(self) -> str:
        """One line, and one for each video that is not in it."""
        top5 = "" if self.top5 is None else f", top-5 {self.top5:.2%}"
        title = f"{self.data} {self.split}" + (f", fold {self.fold}" if self.fold else "")
        lines = [
            f"{title}: top-1 {self.top1:.2%}{top5}, mean over classes {self.mean_class_accuracy:.2%} of {self.count} "
            f"videos ({self.protocol} protocol, {self.clips} x {self.crops} views)"
        ]
        lines += [f"  missing: {path}" for path in self.missing]
        lines += [f"  skipped: {reason}" for reason in self.skipped.values()]
        return "\n".join(lines)


def evaluate(
    model: nn.Module,
    videos: VideoList,
    *,
    protocol: str = "model",
    clips: int | None = None,
    crops: int | None = None,
    batch_size: int = 8,
    workers: int = 0,
    accelerator: Accelerator | None = None,
    on_error: OnError = "fail",
    progress: bool = True,
) -> Evaluation:
    """Classify videos by all their test views and count.

    Args:
        model: a TimeSformer, as it is or as accelerate prepared it; runs where its weights are.
        videos: what to classify; labels are the model's class indices.
        protocol: one of `PROTOCOLS`.
        clips, crops: test views along time and along the longer side; None: as the model's ClipSpec says.
        batch_size: views that run at once in each process; one video's views may be split.
        workers: processes that decode, for each process.
        accelerator: shares the work among its processes and gives each the whole result. None: this process does all.
        on_error: "fail" or "skip" for missing and unreadable videos.
        progress: show a bar, on a terminal.

    Raises:
        ValueError: unknown protocol, or a model with another number of classes than the videos have.
        MissingVideosError, VideoReadError: a video is missing or unreadable and on_error is "fail".
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"Unknown protocol {protocol!r}. Choose from: {', '.join(PROTOCOLS)}.")
    plain: Any = model if accelerator is None else accelerator.unwrap_model(model)
    if plain.num_classes != len(videos.classes):
        raise ValueError(f"The model has {plain.num_classes} classes, the videos have {len(videos.classes)}.")
    chosen = PROTOCOLS[protocol]
    spec = with_views(plain, clips, crops)
    spec = replace(spec, fuse=chosen.fuse or clip_spec(plain).fuse)
    dataset = VideoDataset(videos, spec, where=chosen.where, on_error=on_error)
    rank, world = (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)
    views = spec.clips * spec.crops
    loader = make_loader(dataset, shares(len(dataset), max(1, batch_size // views), rank, world), workers=workers)
    weight = next(plain.parameters())
    device = weight.device if accelerator is None else accelerator.device  # FSDP may keep weights on the CPU
    guesses: dict[int, list[int]] = {}  # sample -> classes, the likeliest first
    skipped: dict[int, str] = {}
    console = Console(stderr=True)  # results may be read from stdout
    progress = progress and console.is_terminal
    with inference(model):
        for batch in track(loader, "evaluating", console=console, disable=not progress or rank > 0):
            skipped.update(batch.skipped)
            flat = batch.clips.flatten(0, 1)
            # FSDP needs every process to call the model equally often, even for what could not be read.
            flat = torch.cat([flat, flat.new_zeros(len(batch.skipped) * views, *flat.shape[1:])])
            parts = torch.split(flat, batch_size)
            logits = torch.cat([model(part.to(device, weight.dtype)).float().cpu() for part in parts])
            for sample, rows in zip(batch.indices.tolist(), torch.split(logits, views), strict=False):
                guesses[sample] = fuse_views(rows, spec.fuse).topk(min(5, rows.shape[-1])).indices.tolist()
    if accelerator is not None:
        from accelerate.utils import gather_object

        for theirs, reasons in gather_object([(guesses, skipped)]):
            guesses.update(theirs)
            skipped.update(reasons)
    labels = {i: videos.samples[i].target for i in guesses}
    return _count(guesses, labels, videos, protocol, spec.clips, spec.crops, skipped)


def _count(
    guesses: dict[int, list[int]],
    labels: dict[int, int],
    videos: VideoList,
    protocol: str,
    clips: int,
    crops: int,
    skipped: dict[int, str],
) -> Evaluation:
    """Count guesses (sample -> classes, the likeliest first) against labels (sample -> class)."""
    if not guesses:
        raise ValueError("No video could be read: " + "; ".join(list(skipped.values())[:3]))
    size = len(videos.classes)
    confusion = torch.zeros(size, size, dtype=torch.int64)
    for sample, classes in guesses.items():
        confusion[labels[sample], classes[0]] += 1
    among = sum(labels[sample] in classes for sample, classes in guesses.items())
    return Evaluation(
        data=videos.name,
        split=videos.split,
        fold=videos.fold,
        protocol=protocol,
        clips=clips,
        crops=crops,
        classes=videos.classes,
        confusion=tuple(map(tuple, confusion.tolist())),
        top1=int(confusion.diag().sum()) / len(guesses),
        top5=among / len(guesses) if size > 5 else None,
        skipped={shown(videos.samples[i].path): reason for i, reason in sorted(skipped.items())},
        missing=tuple(shown(sample.path) for sample in videos.missing),
    )


class Mean(NamedTuple):
    """Means over the folds of a data set, as UCF101 and HMDB51 are reported."""

    top1: float
    top5: float | None
    folds: tuple[str | None, ...]


def mean_of(results: Sequence[Evaluation]) -> Mean:
    """The mean over splits, each counting the same however many videos it has.

    Raises:
        ValueError: no results, or a fold twice, or of different data sets.
    """
    folds = tuple(result.fold for result in results)
    if not results or len(set(folds)) < len(folds) or len({(r.data, r.split, r.protocol) for r in results}) > 1:
        got = [(r.data, r.split, r.fold, r.protocol) for r in results]
        raise ValueError(f"Expected one result for each fold of one data set and protocol, got {got}.")
    top5 = [result.top5 for result in results if result.top5 is not None]
    return Mean(sum(result.top1 for result in results) / len(results), sum(top5) / len(top5) if top5 else None, folds)


def plot_confusion(result: Evaluation, path: str | os.PathLike[str]) -> None:
    """Draw the confusion matrix, each row as shares of the class's samples. Needs matplotlib.

    Args:
        path: of the picture; its suffix says the format.
    """
    from matplotlib.figure import Figure

    counts = torch.tensor(result.confusion, dtype=torch.float64)
    shares = counts / counts.sum(1, keepdim=True).clamp(min=1)
    size = len(result.classes)
    side = min(4 + 0.25 * size, 24.0)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.add_subplot()
    picture = axes.imshow(shares.numpy(), vmin=0, vmax=1, cmap="Blues")
    axes.set_xlabel("prediction")
    axes.set_ylabel("label")
    axes.set_title(f"{result.data} {result.split}: top-1 {result.top1:.1%} of {result.count}")
    if size <= 101:  # more names than that cannot be read
        axes.set_xticks(range(size), result.classes, rotation=90, fontsize=8)
        axes.set_yticks(range(size), result.classes, fontsize=8)
    if size <= 20:
        for i in range(size):
            for j in range(size):
                colour = "white" if shares[i, j] > 0.5 else "black"
                axes.text(j, i, str(int(counts[i, j])), ha="center", va="center", color=colour, fontsize=8)
    figure.colorbar(picture, ax=axes, shrink=0.7)
    with whole_file(path) as partial:
        figure.savefig(partial, dpi=120)
