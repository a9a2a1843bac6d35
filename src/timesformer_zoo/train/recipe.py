"""Training recipes as data, the paper's and one for small data sets, and the optimizer and learning rate they mean.

Paper: Bertasius, Wang, Torresani, "Is Space-Time Attention All You Need for Video Understanding?", ICML 2021,
arXiv 2102.05095, section 4.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import torch
from timm.optim import create_optimizer_v2
from torch import nn
from torchvision import tv_tensors
from torchvision.transforms import v2

__all__ = ["RECIPES", "Recipe", "learning_rate", "make_optimizer", "mix_clips", "set_learning_rate"]


@dataclass(frozen=True)
class Recipe:
    """How to train. The defaults are the paper's.

    Raises:
        ValueError: a value that makes no sense; the message says which.
    """

    epochs: int = 15
    batch_size: int = 16  # videos of an optimizer step, over all processes and micro-batches
    accumulation: int = 1  # micro-batches of a step in each process; changes memory, not the result
    optimizer: str = "momentum"  # a name that timm's create_optimizer_v2 knows
    lr: float = 0.005
    momentum: float = 0.9  # or beta 1
    weight_decay: float = 1e-4
    layer_decay: float | None = None  # each layer's learning rate over that of the next
    schedule: str = "steps"  # "steps": a tenth after each milestone; "cosine": to 0
    milestones: tuple[int, ...] = (11, 14)  # epochs
    warmup: float = 0.0  # epochs of linear increase from 0
    clip_grad: float | None = None  # largest norm of the gradient
    drop_path: float = 0.1
    label_smoothing: float = 0.0
    mixup: float = 0.0  # alpha; 0: off. With cutmix, each takes half of the steps
    cutmix: float = 0.0
    rand_augment: int = 0  # magnitude of RandAugment, 0 to 30, two operations a clip; 0: off
    repeats: int = 1  # clips of each video in a step
    ema: float | None = None  # decay of the average of the weights, which is then the result
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "milestones", tuple(self.milestones))
        _require(self.schedule in SCHEDULES, "schedule", self.schedule, " or ".join(SCHEDULES))
        for name in ("epochs", "batch_size", "accumulation", "repeats"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        for name in ("lr", "weight_decay", "warmup", "mixup", "cutmix"):
            _require(0 <= getattr(self, name) < math.inf, name, getattr(self, name), "0 or more")
        _require(0 <= self.rand_augment <= 30, "rand_augment", self.rand_augment, "0 to 30")

    def to_dict(self) -> dict[str, Any]:
        """The fields, for JSON."""
        return {**asdict(self), "milestones": list(self.milestones)}

    def with_settings(self, settings: Iterable[str]) -> Recipe:
        """A recipe with some fields changed by text, as a command line has them: "lr=1e-4", "ema=none".

        Raises:
            ValueError: no such field, or not a value for it.
        """
        known = {f.name: getattr(RECIPES["paper"], f.name) for f in fields(self)}
        changes: dict[str, Any] = {}
        for setting in settings:
            name, _, text = setting.partition("=")
            if name not in known:
                raise ValueError(f"A recipe has no field {name!r}; it has {', '.join(known)}.")
            try:
                changes[name] = _parse(text, known[name])
            except ValueError as error:
                raise ValueError(f"{name} is {text!r}; {error}") from error
        return replace(self, **changes)


def _parse(text: str, like: Any) -> Any:
    if like is None:
        return None if text == "none" else float(text)
    if isinstance(like, tuple):
        return tuple(int(part) for part in text.split(","))
    return type(like)(text)


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


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """timm's optimizer for a recipe: no weight decay for biases, norms and embeddings; learning rates by layer."""
    optimizer: torch.optim.Optimizer = create_optimizer_v2(
        model,
        opt=recipe.optimizer,
        lr=recipe.lr,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        layer_decay=recipe.layer_decay,
    )
    return optimizer


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set it in each group, times the group's `lr_scale` where timm's layer decay gave it one."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)


def mix_clips(recipe: Recipe, num_classes: int) -> Callable[[torch.Tensor, torch.Tensor], Any]:
    """MixUp and CutMix of torchvision: (clips (B, C, T, H, W), labels (B,)) -> (clips, targets (B, num_classes)).

    All frames of a clip are mixed alike. Without either, or for a single clip, both come back as they are.
    """
    mixers = [v2.MixUp(alpha=recipe.mixup, num_classes=num_classes)] if recipe.mixup else []
    mixers += [v2.CutMix(alpha=recipe.cutmix, num_classes=num_classes)] if recipe.cutmix else []
    choice = v2.RandomChoice(mixers) if mixers else None

    def mix(clips: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if choice is None or len(labels) < 2:
            return clips, labels
        # CutMix looks at the last two dimensions only, so it does not mind C and T the other way round.
        mixed, targets = choice(tv_tensors.Video(clips), labels)
        return mixed.as_subclass(torch.Tensor), targets

    return mix
