"""A dry run: what a fine-tuning would read, train and write, and how long it would take, from a few real steps."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from timesformer_zoo.data.batches import OnError
from timesformer_zoo.data.videos import VideoList
from timesformer_zoo.errors import VideoReadError
from timesformer_zoo.train.best import out_of_patience
from timesformer_zoo.train.evaluate import evaluate
from timesformer_zoo.train.progress import begins_at
from timesformer_zoo.train.recipe import Recipe
from timesformer_zoo.train.resume import checkpoints_in
from timesformer_zoo.train.run import PathLike, Run, check_model, check_validation
from timesformer_zoo.video.origin import Readable
from timesformer_zoo.video.reader import open_video
from timesformer_zoo.video.remote import shown

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["Plan", "plan"]

FILES = 3  # of each split, looked into
LONGEST = 30.0  # s of steps that are timed, unless one takes longer
VALIDATED = 8  # videos


@dataclass(frozen=True)
class Plan:
    """What a run would do, in bytes and seconds; times are extrapolated, and no better than the steps they are from."""

    files: dict[str, str]  # path -> what its first frame and its header say, or why it cannot be read
    parameters: int
    trained: int  # of them
    steps: int  # optimizer steps of the whole run
    done: int  # of them, by an earlier call
    resumes: tuple[str, ...]  # what is said of where it goes on
    writes: dict[str, int]  # path -> bytes; 0: a few kilobytes
    step_seconds: float  # loading included
    timed_steps: int
    val_seconds: float  # to evaluate all validation videos once
    seconds: float  # for what is still to do
    memory: int | None  # the most that was allocated on the GPU, bytes

    def to_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return asdict(self)

    def report(self) -> str:
        """In lines of text."""
        lines = ["reads, among others:", *(f"  {path}: {fact}" for path, fact in self.files.items())]
        frozen = f", {self.parameters - self.trained:,} are frozen" if self.trained < self.parameters else ""
        lines.append(f"trains: {self.trained:,} of {self.parameters:,} parameters{frozen}")
        lines.append(f"  {self.steps:,} steps" + (f", of which {self.done:,} are done" if self.done else ""))
        lines += [f"  {line}" for line in self.resumes]
        lines += ["writes:", *(f"  {path}{_size(size)}" for path, size in self.writes.items())]
        memory = f"; {self.memory / 2**30:.1f} GiB on the GPU" if self.memory is not None else ""
        lines.append(
            f"takes about {_duration(self.seconds)}: {self.step_seconds:.2f} s a step ({self.timed_steps} timed, with "
            f"loading), {_duration(self.val_seconds)} for each evaluation{memory}"
        )
        return "\n".join(lines)


def plan(
    model: nn.Module,
    videos: VideoList,
    recipe: Recipe,
    folder: PathLike,
    *,
    val: VideoList | None = None,
    accelerator: Accelerator | None = None,
    workers: int = 0,
    on_error: OnError = "fail",
) -> Plan:
    """Look into a few videos, train a copy of the model for a few steps, evaluate a few videos; leave nothing behind.

    The arguments and errors are those of `finetune`. The model stays as it is, and `folder` is only read.
    """
    model = check_model(model, videos)
    check_validation(model, videos, recipe, val, on_error)
    folder = Path(folder)
    files = {}
    for split in (videos, val) if val is not None else (videos,):
        samples = split.samples
        for sample in samples[:: max(-(-len(samples) // FILES), 1)]:
            files[shown(sample.path)] = _look(split.readable(sample), on_error)
    # It has the folder to see what is there; only a run that is saved writes to it.
    run = Run(model, videos, recipe, folder, accelerator, on_error)
    parameters = [(p.numel(), p.requires_grad, p.element_size()) for p in run.final.parameters()]
    total = recipe.epochs * run.steps_per_epoch
    resumes: tuple[str, ...] = ()
    done = 0
    if (there := run.peek()) is not None:
        resumes = tuple(begins_at(recipe, there, run.steps_per_epoch, checkpoints_in(run.folder)[-1]))
        done = there.step
    left = 0 if there is not None and out_of_patience(recipe, there) else total - done
    timed, seconds = _time_steps(run, workers)
    weights = sum(count * size for count, _, size in parameters)
    state = weights * (2 if run.average is not None else 1) + _bytes_of(run.optimizer.state)
    val_seconds = 0.0
    if val is not None:
        few = replace(val, samples=val.samples[:VALIDATED])
        began = time.perf_counter()
        evaluate(run.model, few, accelerator=run.accelerator, workers=workers, on_error="skip", progress=False)
        val_seconds = (time.perf_counter() - began) / len(few.samples) * len(val.samples)
    memory = torch.cuda.max_memory_allocated() if run.accelerator.device.type == "cuda" else None
    writes = {str(folder / "model"): weights, f"{folder / 'checkpoints'}, two training states at most": 2 * state}
    if recipe.best != "last":
        writes[f"{folder / 'checkpoints'}, the best weights, and for a moment those before"] = 2 * weights
    small = ["history.json"] + (["results.json", "predictions.jsonl"] if val is not None else [])
    small += ["confusion.png"] if val is not None and val.task == "classes" else []
    writes |= {str(folder / name): 0 for name in small}
    epochs = -(-left // run.steps_per_epoch)
    return Plan(
        files=files,
        parameters=sum(count for count, _, _ in parameters),
        trained=sum(count for count, trained, _ in parameters if trained),
        steps=total,
        done=done,
        resumes=resumes,
        writes=writes,
        step_seconds=seconds,
        timed_steps=timed,
        val_seconds=val_seconds,
        seconds=left * seconds + (epochs + 1) * val_seconds,  # once more at the end
        memory=memory,
    )


def _look(video_at: Readable, on_error: OnError) -> str:
    try:
        video = open_video(video_at, num_threads=1, isolated=True)
        height, width = video.frames([0]).shape[1:3]
        video.close()
    except VideoReadError as error:
        if on_error == "fail":
            raise
        return f"skipped: {error}"
    rate = "" if video.fps is None else f", {video.fps:.4g} frames/s"
    return f"{video.num_frames} frames of {width} x {height}{rate}"


def _time_steps(run: Run, workers: int) -> tuple[int, float]:
    """(steps timed, seconds of each), the loader's start included: what is ready at once later is not counted early."""
    for step, parts in run.steps(0, 1):  # the first is slow: memory, kernels
        run.step(step, parts)
    count, began = 0, time.perf_counter()
    for step, parts in run.steps(workers, 1 + max(3, workers)):
        run.step(step, parts)
        count += 1
        # All processes stop after the same step.
        late = torch.tensor(float(time.perf_counter() - began > LONGEST), device=run.accelerator.device)
        if float(run.accelerator.reduce(late, "sum")):
            break
    return count, (time.perf_counter() - began) / max(count, 1)


def _bytes_of(state: Any) -> int:
    tensors = (value for values in state.values() for value in values.values() if isinstance(value, torch.Tensor))
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _size(size: int) -> str:
    return f", {size / 1e6:.1f} MB" if size else ""


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
