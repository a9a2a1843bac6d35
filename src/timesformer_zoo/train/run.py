"""A run's parts and its state: one optimizer step, the end of an epoch, the weights that count; nothing is printed.

A step depends on the recipe's seed and the step's number alone, and a training state is there whole or not at all.

Legend: B videos, V clips of each, C channels, T frames, H W pixels.
"""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torchvision.transforms import v2

from timesformer_zoo.data.batches import Batch, OnError, VideoDataset, make_loader
from timesformer_zoo.data.order import StepSampler, seed_of
from timesformer_zoo.data.videos import VideoList
from timesformer_zoo.model.timesformer import TimeSformer, expect_timesformer
from timesformer_zoo.train.average import WeightAverage
from timesformer_zoo.train.best import BestWeights, check_metric, out_of_patience
from timesformer_zoo.train.distributed import prepare, whole_weights
from timesformer_zoo.train.drop_path import ClipDraws
from timesformer_zoo.train.evaluate import evaluate
from timesformer_zoo.train.identity import identity_of
from timesformer_zoo.train.objective import OBJECTIVES, Scale
from timesformer_zoo.train.optim import class_weights, freeze, make_optimizer, mix_clips, set_learning_rate
from timesformer_zoo.train.recipe import Recipe, step_learning_rate
from timesformer_zoo.train.resume import RunState, TrainingState, checkpoints_in, save_checkpoint
from timesformer_zoo.video.clip import clip_spec
from timesformer_zoo.video.remote import shown
from timesformer_zoo.video.transform import normalize_clips
from timesformer_zoo.words import counted

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["PathLike", "Run", "check_model", "check_validation"]

PathLike = str | os.PathLike[str]


def check_model(model: nn.Module, videos: VideoList) -> TimeSformer:
    """The model, if it can be trained on the videos; else ValueError, or TypeError if it is no TimeSformer."""
    model = expect_timesformer(model)
    if model.num_classes != len(videos.classes) or model.global_pool not in ("token", "avg"):
        size = len(videos.classes)
        raise ValueError(
            f"The model has {counted(model.num_classes, 'classes')} and global_pool {model.global_pool!r}; expected "
            f"{counted(size, videos.things)}, as the videos have, and one output a clip: create it with "
            f"num_classes={size}."
        )
    return model


def check_validation(
    model: TimeSformer, videos: VideoList, recipe: Recipe, val: VideoList | None, on_error: OnError
) -> None:
    """Raise what the first evaluation would, or the choice of the best epoch by it: before an epoch, and not after.

    Raises:
        ValueError: `val` does not fit the videos, or there will not be the value that `Recipe.best` names.
        MissingVideosError: a video is missing and on_error is "fail".
    """
    if val is not None:
        if (val.task, len(val.classes)) != (videos.task, len(videos.classes)):
            raise ValueError(
                f"val has {counted(len(val.classes), val.things)} and task {val.task!r}, expected the "
                f"{counted(len(videos.classes), videos.things)} of the videos: read it with labels=videos.classes and "
                f"task={videos.task!r}."
            )
        VideoDataset(val, model, on_error=on_error)
    check_metric(recipe, val)


class Run:
    """The parts of a run and its state. `model` is a copy as prepared by accelerate, `final` another, plain one."""

    def __init__(
        self,
        model: TimeSformer,
        videos: VideoList,
        recipe: Recipe,
        folder: Path,
        accelerator: Accelerator | None,
        on_error: OnError,
    ) -> None:
        if accelerator is None:
            from accelerate import Accelerator

            accelerator = Accelerator()
        self.accelerator = accelerator
        self.recipe = recipe
        identity = identity_of(recipe, videos, model, accelerator)
        model = copy.deepcopy(model)  # who gave it may call again, and the weights to start from are to be the same
        self.folder = folder / "checkpoints"
        self.dataset = VideoDataset(
            videos,
            model,
            training=True,
            repeats=recipe.repeats,
            augment=v2.RandAugment(2, recipe.rand_augment) if recipe.rand_augment else None,
            seed=recipe.seed,
            on_error=on_error,
        )
        self.steps_per_epoch = -(-len(self.dataset) // recipe.batch_size)
        self.mix = mix_clips(recipe, model.num_classes)
        self.objective = OBJECTIVES[videos.task]
        self.scale = None
        if self.objective.scaled:
            self.scale = Scale.of(torch.stack([self.dataset.target(i) for i in range(len(self.dataset))]))
            if clip_spec(model).task == videos.task:  # a head that knows its values already
                self.scale.head_to_standard(model.head)
        if clip_spec(model).task != videos.task:
            model.clip = {**(model.clip or {}), "task": videos.task}
        if recipe.balanced_sampling and videos.window is not None:
            raise ValueError(
                f"Recipe.balanced_sampling draws videos from everywhere, and these shards are read in windows of "
                f"{videos.window}: leave it out, or read_shards(…, window=None) to shuffle all."
            )
        self.balance = videos.one_class_each("Recipe.balanced_sampling") if recipe.balanced_sampling else None
        weights = class_weights(recipe, videos)
        self.class_weights = None if weights is None else weights.to(accelerator.device)
        self.frozen = freeze(model, recipe.freeze)
        # A plain model to put the result in, also where the trained one is wrapped or sharded.
        self.final: TimeSformer = copy.deepcopy(model)
        self.draws = ClipDraws(model)
        self.model, self.optimizer = prepare(accelerator, model, make_optimizer(model, recipe))
        self.average = None if recipe.ema is None else WeightAverage(self.model, recipe.ema)
        self.state = RunState(identity, recipe.to_dict())
        self.best = BestWeights(self.folder, recipe.best)  # of "last" no epoch has a value
        self.saved = TrainingState(accelerator, self.model, self.optimizer, self.average, self.state)

    def steps(self, workers: int, stop: int | None = None) -> Iterator[tuple[int, list[Batch]]]:
        """(number, micro-batches) of each step that is still to do, up to `stop`; None: the last epoch's end."""
        if stop is None:
            stop = 0 if out_of_patience(self.recipe, self.state) else self.recipe.epochs * self.steps_per_epoch
        sampler = StepSampler(
            len(self.dataset),
            self.recipe.batch_size,
            stop=stop,
            start=self.state.step,
            accumulation=self.recipe.accumulation,
            seed=self.recipe.seed,
            rank=self.accelerator.process_index,
            world=self.accelerator.num_processes,
            shards=self.dataset.videos.shards,
            window=self.dataset.videos.window,
            balance=self.balance,
        )
        batches = iter(make_loader(self.dataset, sampler, workers=workers))
        for step in range(sampler.start, sampler.stop):
            yield step, [next(batches) for _ in range(self.recipe.accumulation)]

    def step(self, step: int, parts: list[Batch], lr: float | None = None) -> float:
        """One optimizer step: the gradient of the mean loss over all its clips, however they are dealt out.

        Args:
            lr: learning rate; None: the schedule's.
        """
        accelerator, recipe = self.accelerator, self.recipe
        torch.manual_seed(seed_of(recipe.seed, step, accelerator.process_index))  # dropout
        scheduled = step_learning_rate(recipe, step, self.steps_per_epoch)
        set_learning_rate(self.optimizer, scheduled if lr is None else lr)
        count = sum(len(part.targets) for part in parts) * recipe.repeats
        # Over all processes; fewer than asked for where videos were skipped.
        clips_seen = int(accelerator.reduce(torch.tensor(count, device=accelerator.device), "sum"))
        self.model.train()
        for module in self.frozen:
            module.eval()
        total = torch.zeros((), device=accelerator.device)
        for i, part in enumerate(parts):
            sync = i == len(parts) - 1
            clips = [(sample, repeat) for sample in part.indices.tolist() for repeat in range(recipe.repeats)]
            draws = self.draws.of([seed_of(recipe.seed, step, *clip) for clip in clips], accelerator.device)
            with draws, nullcontext() if sync else accelerator.no_sync(self.model):
                loss = self.loss(part)
                # DDP and FSDP take the mean over the processes.
                accelerator.backward(loss * (accelerator.num_processes / max(clips_seen, 1)))
                total += loss.detach()
        if recipe.clip_grad is not None:
            accelerator.clip_grad_norm_(self.model.parameters(), recipe.clip_grad)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.average is not None:
            self.average.update(step + 1)
        loss_sum = float(accelerator.reduce(total, "sum"))
        mean = loss_sum / max(clips_seen, 1)
        if not mean < math.inf:
            raise FloatingPointError(f"The loss at step {step} is {mean}: try a lower learning rate.")
        for part in parts:
            self.state.skipped.update({shown(self.dataset.videos.samples[i].path): why for i, why in part.skipped})
        self.state.step, self.state.loss = step + 1, self.state.loss + loss_sum
        self.state.seen += clips_seen
        return mean

    @property
    def lr(self) -> float:
        """The highest learning rate of the last step."""
        return max(float(group["lr"]) for group in self.optimizer.param_groups)

    def loss(self, batch: Batch) -> torch.Tensor:
        """Summed over the clips (B V, C, T, H, W) of a micro-batch."""
        device = self.accelerator.device
        clips = normalize_clips(batch.clips.to(device, non_blocking=True).flatten(0, 1), self.dataset.spec)
        targets = batch.targets.to(device, non_blocking=True).repeat_interleave(batch.clips.shape[1], 0)
        if not len(targets):  # the other processes wait for this one's part in the gradient
            nothing: torch.Tensor = 0.0 * self.model(clips.new_zeros(1, *clips.shape[1:])).float().sum()
            return nothing
        if self.scale is not None:
            targets = self.scale.standardise(targets)
        clips, targets = self.mix(clips, targets, seed_of(self.recipe.seed, self.state.step))
        outputs = self.model(clips).float()
        # The classes' weights are not divided by: a clip's part in the gradient is the same in any batch.
        return self.objective.loss(outputs, targets, self.recipe.label_smoothing, self.class_weights)

    def end_epoch(self, val: VideoList | None, workers: int) -> dict[str, Any]:
        """Evaluate, and add the epoch to the history, which the training state that is saved already then has, too."""
        state, recipe = self.state, self.recipe
        epoch = state.step // self.steps_per_epoch
        entry: dict[str, Any] = {"epoch": epoch, "loss": state.loss / max(state.seen, 1)}
        entry["lr"] = step_learning_rate(recipe, state.step - 1, self.steps_per_epoch)
        if val is not None:
            in_units = nullcontext() if self.scale is None else self.scale.outputs_in_units(self.model)
            with self.averaged(), in_units:
                score = evaluate(
                    self.model,
                    val,
                    workers=workers,
                    accelerator=self.accelerator,
                    on_error=self.dataset.on_error,
                    progress=False,
                )
            entry.update(score.metrics)
            state.skipped.update(score.skipped)
        state.history.append(entry)
        state.loss, state.seen = 0.0, 0
        self.keep_best()
        if self.accelerator.is_main_process:
            self.saved.save_run(checkpoints_in(self.folder)[-1])
            self.best.remove_others(state.best)
        self.accelerator.wait_for_everyone()
        return entry

    def keep_best(self) -> None:
        """Keep the weights if the epoch that has just ended is the best."""
        if self.best.improved(self.state):
            weights = self.weights()
            if self.accelerator.is_main_process and self.state.best is not None:
                self.best.save(self.state.best, weights)

    def weights(self) -> dict[str, torch.Tensor]:
        """What is evaluated and saved, whole: the average, if there is one. Called by all processes."""
        with self.averaged():
            # Copies: what the model has in place is exchanged again.
            return {name: value.detach().cpu().clone() for name, value in whole_weights(self.model).items()}

    def save(self) -> None:
        from accelerate.utils import gather_object

        for skipped in gather_object([self.state.skipped]):
            self.state.skipped.update(skipped)
        save_checkpoint(self.saved, self.folder)

    def resume(self) -> None:
        """Load the newest training state, if there is one."""
        if not (saved := checkpoints_in(self.folder)):
            return
        self.saved.load(saved[-1])
        state = self.state
        self._go_on(state, saved[-1])
        if state.best is None and state.history and state.step == state.history[-1]["epoch"] * self.steps_per_epoch:
            self.keep_best()  # by another metric than before, of the weights that there are

    def peek(self) -> RunState | None:
        """Where `resume` would go on, without the weights; the run stays as it is. Its errors are those of `resume`."""
        if not (saved := checkpoints_in(self.folder)):
            return None
        state = RunState(self.state.identity, self.state.recipe)
        state.load_state_dict(TrainingState.run_in(saved[-1])["run"])
        self._go_on(state, saved[-1])
        return state

    def _go_on(self, state: RunState, place: Path) -> None:
        if state.step > self.recipe.epochs * self.steps_per_epoch:
            done = state.step / self.steps_per_epoch
            raise ValueError(
                f"{place} is of a run that has been trained for {done:.4g} of its epochs, and Recipe.epochs is "
                f"{self.recipe.epochs}. Ask for as many or more, or use another folder to start anew."
            )
        if state.best is not None and state.best["metric"] != self.recipe.best:
            state.best = None

    def averaged(self) -> AbstractContextManager[None]:
        """The model has the weights that count."""
        return nullcontext() if self.average is None else self.average.in_place()

    def result(self) -> TimeSformer:
        if self.state.best is not None:
            self.accelerator.wait_for_everyone()  # the main process has written it
            self.final.load_state_dict(self.best.load(self.state.best))
        else:
            self.final.load_state_dict(self.weights())
        return self.final.eval().requires_grad_()
