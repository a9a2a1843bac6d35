"""Fine-tuning: videos and a recipe in, a trained model out, over any number of processes and through any restarts.

Hugging Face accelerate moves and wraps things, so one process, several GPUs, several machines and FSDP are a matter of
how the script is launched. A run that was killed goes on to the result that it would have had: see train/run.py.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import Progress
from torch import nn

from timesformer_zoo.data.batches import OnError
from timesformer_zoo.data.videos import VideoList
from timesformer_zoo.model.timesformer import TimeSformer
from timesformer_zoo.train.best import out_of_patience
from timesformer_zoo.train.progress import begins_at, stopped_early
from timesformer_zoo.train.recipe import Recipe
from timesformer_zoo.train.resume import checkpoints_in
from timesformer_zoo.train.run import PathLike, Run, check_model, check_validation

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["Finetuned", "finetune"]

_NOT_SCORES = ("loss", "lr")  # of an epoch's entry, as trackers get it: these they have of each step


@dataclass
class Finetuned:
    """What a run gives."""

    model: TimeSformer  # the trained weights, or their average if the recipe says so; where the given one was
    history: list[dict[str, Any]]  # an entry an epoch: epoch, loss, lr and, with validation, all metrics by name
    skipped: dict[str, str]  # path -> why it could not be read
    best: dict[str, Any] | None = None  # metric, value, epoch and step of the model, if it is not the last


def finetune(
    model: nn.Module,
    videos: VideoList,
    recipe: Recipe,
    folder: PathLike,
    *,
    val: VideoList | None = None,
    accelerator: Accelerator | None = None,
    workers: int = 0,
    save_every: int | None = None,
    on_error: OnError = "fail",
    progress: bool = True,
    on_epoch: Callable[[dict[str, Any]], object] | None = None,
) -> Finetuned:
    """Train a model on videos; go on where an earlier call with the same `folder` stopped.

    A call that goes on says so, and so does one that finds all done. It may ask for more epochs than the one before:
    the learning rate then goes on where the schedule of the new number has it. A cosine that had come to 0 after 10
    epochs is, with 20 of them, half way down, so extending is a warm restart; the schedule of steps keeps its
    milestones unless the recipe has others.

    Args:
        model: a TimeSformer with as many classes as the videos have, and the recipe's `drop_path` given as its
            `drop_path_rate`. It stays as it is: a copy is trained.
        videos: to train on; their `task` says what is minimised, see `OBJECTIVES`. Values are standardised in training
            alone: the result gives them in the units of the list.
        recipe: see `RECIPES`.
        folder: for checkpoints; shared by all machines.
        val: evaluated after each epoch, with the model's own test views.
        accelerator: None: a plain `Accelerator()`, which is set up by how the script was launched. Trackers that one
            was given, and that are initialised (`init_trackers`), get loss and lr of each step and each epoch's scores.
        workers: processes that decode, for each training process.
        save_every: optimizer steps between checkpoints, besides one after each epoch.
        on_error: "fail" or "skip" for missing and unreadable videos; skipped ones are in the result.
        progress: show a bar on a terminal, a line for each epoch, and where the run begins if not at the beginning,
            all on stderr.
        on_epoch: called in the main process with each epoch's entry of the history, once its training state is saved.
            Epochs of an earlier call are not repeated.

    Raises:
        ValueError: the model or `val` does not fit the videos, or the folder's training state is of another recipe,
            other videos or targets, or a model of other weights, its head aside. `MAY_CHANGE` in train/recipe.py has
            what may be another in the recipe. Who starts from random weights sets torch's seed before they are made.
        MissingVideosError, VideoReadError: a video is missing or unreadable and on_error is "fail".
        TypeError: the model is no TimeSformer.
        FloatingPointError: the loss is no longer a finite number.
    """
    model = check_model(model, videos)
    check_validation(model, videos, recipe, val, on_error)
    run = Run(model, videos, recipe, Path(folder), accelerator, on_error)
    run.resume()
    _train(run, val, workers, save_every, progress and run.accelerator.is_main_process, on_epoch)
    result = run.result()
    if run.scale is not None:
        run.scale.head_to_units(result.head)
    return Finetuned(result, run.state.history, run.state.skipped, run.state.best)


def _train(
    run: Run,
    val: VideoList | None,
    workers: int,
    save_every: int | None,
    progress: bool,
    on_epoch: Callable[[dict[str, Any]], object] | None,
) -> None:
    """All steps that are still to do."""
    recipe, total = run.recipe, run.recipe.epochs * run.steps_per_epoch
    console = Console(stderr=True)  # results may be read from stdout

    def say(text: str) -> None:
        if progress:
            console.print(text, soft_wrap=True, markup=False, highlight=False)

    def end_epoch() -> None:
        entry = run.end_epoch(val, workers)
        scores = {name: value for name, value in entry.items() if name not in _NOT_SCORES and value is not None}
        run.accelerator.log({**scores, "epoch_loss": entry["loss"]}, step=run.state.step)
        names = dict.fromkeys(("epoch", "loss", "lr", *run.objective.words, recipe.best))
        shown = [k for k in names if entry.get(k) is not None]
        say("  ".join(f"{k} {entry[k]:.4g}" for k in shown))
        if on_epoch is not None and run.accelerator.is_main_process:
            on_epoch(dict(entry))
        if out_of_patience(recipe, run.state):
            say(stopped_early(recipe, run.state))

    if run.state.step:
        for line in begins_at(recipe, run.state, run.steps_per_epoch, checkpoints_in(run.folder)[-1]):
            say(line)
    if run.state.is_evaluation_due(run.steps_per_epoch):  # an earlier call ended in it
        end_epoch()
    # What on_epoch prints goes above the bar, unless the output is read by another than the terminal.
    with Progress(
        console=console,
        disable=not (progress and console.is_terminal),
        redirect_stdout=sys.stdout.isatty(),
    ) as bar:
        task = bar.add_task("training", total=total, completed=run.state.step)
        for step, parts in run.steps(workers):
            loss = run.step(step, parts)
            run.accelerator.log({"loss": loss, "lr": run.lr}, step=run.state.step)
            bar.update(task, advance=1, description=f"epoch {step // run.steps_per_epoch + 1}, loss {loss:.3f}")
            if run.state.is_evaluation_due(run.steps_per_epoch):
                run.save()  # before the evaluation: what ends that does not cost the epoch
                end_epoch()
                if out_of_patience(recipe, run.state):
                    break
            elif save_every and run.state.step % save_every == 0:
                run.save()
