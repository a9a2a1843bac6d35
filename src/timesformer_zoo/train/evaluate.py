"""Evaluation: test views and protocols, over any number of processes with no sample counted twice.

Legend: B videos, V views, C channels, T frames, H W pixels, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console
from rich.progress import track
from torch import nn

from timesformer_zoo.data.batches import OnError, VideoDataset, Where, make_loader
from timesformer_zoo.data.order import shares
from timesformer_zoo.data.videos import VideoList
from timesformer_zoo.prediction import OUTPUTS, inference, tell
from timesformer_zoo.train.evaluation import Evaluation, Outcome
from timesformer_zoo.train.metrics import confusion
from timesformer_zoo.train.objective import OBJECTIVES
from timesformer_zoo.video.clip import ClipSpec, clip_spec
from timesformer_zoo.video.remote import shown
from timesformer_zoo.words import counted

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["PROTOCOLS", "Protocol", "evaluate"]


@dataclass(frozen=True)
class Protocol:
    """Where test clips are in a video, and how views become one prediction."""

    where: Where
    fuse: str | None  # of classes: "logits" (their sum), "softmax" (its mean), None: as the model's spec says
    about: str


PROTOCOLS: dict[str, Protocol] = {
    "model": Protocol("start", None, "as the model's ClipSpec says, and as predict does"),
    "official": Protocol("start", "logits", "the authors' code: clips from frame 0, sum of the logits"),
    "paper": Protocol("middle", "softmax", "the paper's text: clip in the middle, mean of the softmax"),
}


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
    """Predict videos from all their test views, and hold that against their targets.

    Args:
        model: a TimeSformer, as it is or as accelerate prepared it; runs where its weights are.
        videos: what to predict; of the model's kind of target, and with its classes in their order.
        protocol: one of `PROTOCOLS`.
        clips, crops: test views along time and along the longer side; None: as the model's ClipSpec says.
        batch_size: views that run at once in each process; one video's views may be split.
        workers: processes that decode, for each process.
        accelerator: shares the work among its processes and gives each the whole result. None: this process does all.
        on_error: "fail" or "skip" for missing and unreadable videos.
        progress: show a bar, on a terminal.

    Raises:
        ValueError: unknown protocol, or a model of another kind of target, or number of classes, than the videos.
        MissingVideosError, VideoReadError: a video is missing or unreadable and on_error is "fail".
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"Unknown protocol {protocol!r}. Choose from: {', '.join(PROTOCOLS)}.")
    plain: Any = model if accelerator is None else accelerator.unwrap_model(model)
    if plain.num_classes != len(videos.classes):
        got, things = counted(plain.num_classes, "classes"), counted(len(videos.classes), videos.things)
        raise ValueError(f"The model has {got}, the videos have {things}: give a model that was trained for these.")
    chosen = PROTOCOLS[protocol]
    spec = clip_spec(plain).with_views(clips, crops)
    if spec.task != videos.task:
        raise ValueError(
            f"The model is for {spec.task} (its ClipSpec.task), the videos are of kind {videos.task!r}: read them with "
            f'task="{spec.task}" (--task), or fine-tune the model on them.'
        )
    spec = replace(spec, fuse=chosen.fuse or clip_spec(plain).fuse)
    dataset = VideoDataset(videos, spec, where=chosen.where, on_error=on_error)
    rank, world = (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)
    views = spec.clips * spec.crops
    loader = make_loader(dataset, shares(len(dataset), max(1, batch_size // views), rank, world), workers=workers)
    weight = next(plain.parameters())
    device = weight.device if accelerator is None else accelerator.device  # FSDP may keep weights on the CPU
    scores: dict[int, torch.Tensor] = {}  # sample -> probabilities or values (K,)
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
            outputs = torch.cat([model(part.to(device, weight.dtype)).double().cpu() for part in parts])
            for sample, rows in zip(batch.indices.tolist(), torch.split(outputs, views), strict=False):
                scores[sample] = OUTPUTS[spec.task].fuse(rows, spec.fuse)
    if accelerator is not None:
        from accelerate.utils import gather_object

        for theirs, reasons in gather_object([(scores, skipped)]):
            scores.update(theirs)
            skipped.update(reasons)
    if not scores:
        raise ValueError("No video could be read: " + "; ".join(list(skipped.values())[:3]))
    order = sorted(scores)
    targets = torch.stack([dataset.target(i) for i in order])
    return _judge(videos, order, torch.stack([scores[i] for i in order]), targets, protocol, spec, skipped)


def _judge(
    videos: VideoList,
    order: list[int],
    scores: torch.Tensor,
    targets: torch.Tensor,
    protocol: str,
    spec: ClipSpec,
    skipped: dict[int, str],
) -> Evaluation:
    """Hold scores (N, K) of the samples of that order against their targets."""
    objective = OBJECTIVES[videos.task]
    outcomes = []
    for i, fused, loss in zip(order, scores, objective.losses(scores, targets).tolist(), strict=True):
        sample = videos.samples[i]
        said = tell(fused, videos.task, videos.classes, 5, sample.path)
        said = replace(said, start=sample.start, end=sample.end)
        outcomes.append(Outcome(said, sample.target, videos.label(sample), loss))
    counts = confusion(scores, targets).tolist() if videos.task == "classes" else None
    return Evaluation(
        data=videos.name,
        split=videos.split,
        fold=videos.fold,
        protocol=protocol,
        clips=spec.clips,
        crops=spec.crops,
        task=videos.task,
        classes=videos.classes,
        metrics=objective.metrics(scores, targets),
        per_class=dict(zip(videos.classes, objective.per_class(scores, targets), strict=True)),
        confusion=None if counts is None else tuple(map(tuple, counts)),
        videos=tuple(outcomes),
        skipped={shown(videos.samples[i].path): reason for i, reason in sorted(skipped.items())},
        missing=tuple(shown(sample.path) for sample in videos.missing),
        content=videos.content,
    )
