"""The learning-rate range test: which learning rate a model, its data and a recipe can take.

Smith, "Cyclical Learning Rates for Training Neural Networks", WACV 2017, arXiv 1506.01186, section 3.3. The rate rises
from step to step, here by the same factor and not the same amount, so that several orders of magnitude are covered.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import track
from torch import nn

from timesformer_zoo.data.batches import OnError
from timesformer_zoo.data.videos import VideoList
from timesformer_zoo.train.recipe import Recipe
from timesformer_zoo.train.run import Run, check_model
from timesformer_zoo.writing import whole_file

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["LearningRates", "find_lr"]

SMOOTHING = 0.9  # of the losses: the weight of what was before
DIVERGED = 4.0  # times the lowest smoothed loss


@dataclass(frozen=True)
class LearningRates:
    """What a range test saw."""

    rates: tuple[float, ...]  # of each step
    losses: tuple[float, ...]  # at each step, before it changed the weights
    smoothed: tuple[float, ...]  # their moving average
    diverged: bool  # whether the test ended because the loss had risen far

    @property
    def suggestion(self) -> float:
        """A tenth of the rate at which the smoothed loss was lowest: there it still falls, with room to spare."""
        lowest = min(range(len(self.smoothed)), key=lambda i: self.smoothed[i])
        return self.rates[lowest] / 10

    def summary(self) -> str:
        """One line."""
        lowest = min(range(len(self.smoothed)), key=lambda i: self.smoothed[i])
        end = "where the loss had risen far" if self.diverged else "the highest that was tried: the loss had not risen"
        return (
            f"learning rate {self.suggestion:.2g}: a tenth of {self.rates[lowest]:.2g}, where the loss was lowest "
            f"({self.smoothed[lowest]:.3f}, from {self.smoothed[0]:.3f}); {len(self.rates)} steps, from "
            f"{self.rates[0]:.2g} to {self.rates[-1]:.2g}, {end}"
        )

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draw the losses over the rates. Needs matplotlib.

        Args:
            path: of the picture; its suffix says the format.
        """
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6, 4), layout="constrained")
        axes = figure.add_subplot()
        axes.plot(self.rates, self.losses, color="0.8", label="loss")
        axes.plot(self.rates, self.smoothed, label="smoothed")
        axes.axvline(self.suggestion, color="C1", linestyle="--", label=f"suggestion {self.suggestion:.2g}")
        axes.set_xscale("log")
        axes.set_ylim(0, max(self.smoothed[0], *self.smoothed[: max(len(self.smoothed) // 2, 1)]) * 1.5)
        axes.set_xlabel("learning rate")
        axes.set_ylabel("training loss")
        axes.legend()
        with whole_file(path) as partial:
            figure.savefig(partial, dpi=120)


def find_lr(
    model: nn.Module,
    videos: VideoList,
    recipe: Recipe,
    *,
    lowest: float = 1e-6,
    highest: float = 1.0,
    steps: int = 100,
    accelerator: Accelerator | None = None,
    workers: int = 0,
    on_error: OnError = "fail",
    progress: bool = True,
) -> LearningRates:
    """Train a copy of the model while the learning rate rises, until the loss has risen far, and leave nothing behind.

    All but the learning rate is as the recipe has it: optimizer, layer decay, frozen layers, batch size, augmentation.

    Args:
        model, videos, recipe, accelerator, workers, on_error: as `finetune` takes them; the model stays as it is.
        lowest, highest: the learning rates of the first and the last step.
        steps: how many. Few are quick and rough; each sees a batch of the recipe.
        progress: show a bar, on a terminal.

    Raises:
        ValueError: the model does not fit the videos, or the range is none, or even the lowest rate diverges.
        MissingVideosError, VideoReadError: a video is missing or unreadable and on_error is "fail".
    """
    if not 0 < lowest < highest < math.inf or steps < 2:
        raise ValueError(f"Expected 0 < lowest < highest and 2 steps or more, got {lowest}, {highest} and {steps}.")
    rates: list[float] = []
    losses: list[float] = []
    smoothed: list[float] = []
    average, diverged = 0.0, False
    console = Console(stderr=True)
    with TemporaryDirectory() as folder:  # nothing is saved; a run has a folder
        run = Run(check_model(model, videos), videos, recipe, Path(folder), accelerator, on_error)
        shown = progress and console.is_terminal and run.accelerator.is_main_process
        for step, parts in track(
            run.steps(workers, steps), "learning rates", total=steps, console=console, disable=not shown
        ):
            rate = lowest * (highest / lowest) ** (step / (steps - 1))
            try:
                loss = run.step(step, parts, rate)
            except FloatingPointError:
                diverged = True
                break
            average = SMOOTHING * average + (1 - SMOOTHING) * loss
            rates.append(rate)
            losses.append(loss)
            smoothed.append(average / (1 - SMOOTHING ** (step + 1)))  # as Adam: the first ones are not near 0
            if smoothed[-1] > DIVERGED * min(smoothed):
                diverged = True
                break
    if len(rates) < 2:
        raise ValueError(f"The loss is no finite number from a learning rate of {lowest:g} on; try a lower one.")
    return LearningRates(tuple(rates), tuple(losses), tuple(smoothed), diverged)
