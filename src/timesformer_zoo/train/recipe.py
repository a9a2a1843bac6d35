"""Training recipes as data, the paper's and one for small data sets, and the learning rate they mean.

Paper: Bertasius, Wang, Torresani, "Is Space-Time Attention All You Need for Video Understanding?", ICML 2021,
arXiv 2102.05095, section 4.

The command line makes an option of each field, with its help, before anything slow is imported: this file is read by
itself there, and imports the standard library alone.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from typing import Any

__all__ = ["MAY_CHANGE", "RECIPES", "Recipe", "learning_rate", "step_learning_rate"]


def _value(default: Any, help: str, may_change: bool = False) -> Any:
    """A field: what it is, in words, and whether a run that was begun may go on with another value of it."""
    return field(default=default, metadata={"help": help, "may_change": may_change})


@dataclass(frozen=True)
class Recipe:
    """How to train. The defaults are the paper's.

    What each field means is in its metadata, and in `timesformer-zoo finetune --help`.

    Raises:
        ValueError: a value that makes no sense; the message says which.
    """

    epochs: int = _value(15, "times to go through the videos; more than a finished run had extend it", True)
    batch_size: int = _value(16, "videos of an optimizer step, over all processes and micro-batches")
    accumulation: int = _value(
        1, "micro-batches of a step in each process: less memory, and the same result up to rounding", True
    )
    optimizer: str = _value("momentum", "a name that timm's create_optimizer_v2 knows")
    lr: float = _value(0.005, "the highest learning rate")
    momentum: float = _value(0.9, "of the optimizer; of Adam and its kin, beta 1")
    weight_decay: float = _value(1e-4, "for all but biases, norms and embeddings")
    layer_decay: float | None = _value(None, "each layer's learning rate over that of the next, or none")
    schedule: str = _value("steps", "of the learning rate: steps: a tenth after each milestone; cosine: to 0")
    milestones: tuple[int, ...] = _value((11, 14), "epochs, for the schedule steps, such as 11,14", True)
    warmup: float = _value(0.0, "epochs in which the learning rate rises from 0")
    clip_grad: float | None = _value(None, "largest norm of the gradient, or none")
    freeze: str = _value(
        "none",
        "layers that stay as they are: none; embed: the embeddings; N: these and the first N blocks; backbone: all but "
        "the head. They have no gradient, no weight decay and no drop path",
    )
    drop_path: float = _value(0.1, "chance that the last block's branches are dropped; 0 in the first, linear between")
    label_smoothing: float = _value(0.0, "share of the target that is spread over all classes")
    class_weights: str | tuple[float, ...] | None = _value(
        None,
        "of the classes in the loss: balanced: in inverse proportion to their videos, 1 on average over the videos; "
        "or a JSON file, {name: weight} or a list by index; or none",
    )
    balanced_sampling: bool = _value(
        False,
        "draw each class equally often: an epoch has as many draws as there are videos, those of small classes several "
        "times with other clips, of large ones in turn",
    )
    mixup: float = _value(0.0, "alpha of MixUp, 0: off; with CutMix, each takes half of the steps")
    cutmix: float = _value(0.0, "alpha of CutMix, 0: off")
    rand_augment: int = _value(0, "magnitude of RandAugment, two operations a clip, 0 to 30; 0: off")
    repeats: int = _value(1, "clips of each video in a step")
    ema: float | None = _value(
        None, "decay of the moving average of the weights, which is then evaluated and saved, or none"
    )
    best: str = _value(
        "last",
        "which weights are the result: last, or those of the epoch that was best by this value of its line in "
        "history.json, such as top1 or loss; the earliest of equals",
        True,
    )
    patience: int | None = _value(
        None, "stop after so many epochs that were not the best yet, or none; with best", True
    )
    seed: int = _value(0, "of all that is random")

    def __post_init__(self) -> None:
        for name in ("milestones", "class_weights"):
            if isinstance(value := getattr(self, name), list):  # from JSON
                object.__setattr__(self, name, tuple(value))
        object.__setattr__(self, "freeze", str(self.freeze))
        _require(self.schedule in SCHEDULES, "schedule", self.schedule, " or ".join(SCHEDULES))
        for name in ("epochs", "batch_size", "accumulation", "repeats"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        for name in ("lr", "weight_decay", "warmup", "mixup", "cutmix"):
            _require(0 <= getattr(self, name) < math.inf, name, getattr(self, name), "0 or more")
        for name in ("momentum", "drop_path", "label_smoothing", "ema"):
            _require(0 <= (getattr(self, name) or 0) < 1, name, getattr(self, name), "0 or more, and less than 1")
        for name in ("layer_decay", "clip_grad"):
            _require(getattr(self, name) is None or getattr(self, name) > 0, name, getattr(self, name), "more than 0")
        _require(list(self.milestones) == sorted(self.milestones), "milestones", self.milestones, "ascending epochs")
        _require(0 <= self.rand_augment <= 30, "rand_augment", self.rand_augment, "0 to 30")
        kinds = ("none", "embed", "backbone")
        _require(
            self.freeze in kinds or self.freeze.isdecimal(), "freeze", self.freeze, f"{', '.join(kinds)} or blocks"
        )
        weights = self.class_weights
        if isinstance(weights, tuple):
            fine = all(0 <= weight < math.inf for weight in weights) and any(weights)
        else:
            fine = weights in (None, "balanced")
        _require(fine, "class_weights", weights, "None, balanced, or a number from 0 for each class")
        both = weights == "balanced" and self.balanced_sampling
        _require(not both, "balanced_sampling", True, "False beside class_weights = balanced: each is enough")
        if self.patience is not None:
            _require(self.patience >= 1, "patience", self.patience, "1 or more, or None")
            _require(self.best != "last", "best", self.best, "a metric such as top1, for the patience to go by")

    def to_dict(self) -> dict[str, Any]:
        """The fields, for JSON."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


MAY_CHANGE = frozenset(f.name for f in fields(Recipe) if f.metadata["may_change"])
"""Fields that may have another value when a run goes on: those before it would not have been otherwise."""


def _require(holds: bool, name: str, got: object, expected: str) -> None:
    if not holds:
        raise ValueError(f"Recipe.{name} is {got!r}, expected {expected}")


# schedule -> (recipe, epochs done) -> learning rate over the highest
SCHEDULES: dict[str, Callable[[Recipe, float], float]] = {
    "steps": lambda recipe, epoch: 0.1 ** bisect_right(recipe.milestones, epoch),
    "cosine": lambda recipe, epoch: (
        0.5 + 0.5 * math.cos(math.pi * (epoch - recipe.warmup) / max(recipe.epochs - recipe.warmup, 1e-9))
    ),
}

RECIPES: dict[str, Recipe] = {
    "paper": Recipe(),
    # Fine-tuning from video weights on hundreds of clips: late layers adapt, early ones barely move, and the average of
    # the weights is what counts.
    "small-data": Recipe(
        epochs=30,
        batch_size=16,
        optimizer="adamw",
        lr=5e-4,
        weight_decay=0.05,
        layer_decay=0.75,
        schedule="cosine",
        warmup=2.0,
        clip_grad=1.0,
        label_smoothing=0.1,
        repeats=2,
        ema=0.99,
    ),
}


def learning_rate(recipe: Recipe, epoch: float) -> float:
    """The learning rate after `epoch` epochs, which need not be a whole number."""
    if epoch < recipe.warmup:
        return recipe.lr * epoch / recipe.warmup
    return recipe.lr * SCHEDULES[recipe.schedule](recipe, epoch)


def step_learning_rate(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """That of a step, counted from 0: the schedule's in the middle of it.

    At its beginning, the first step of a warm-up has 0 and learns nothing, which may be all of an epoch; at its end,
    the last one of a cosine.
    """
    return learning_rate(recipe, (step + 0.5) / steps_per_epoch)
