"""What a recipe means in torch: the optimizer, frozen layers, the classes' weights, mixed clips.

Legend: B clips, C channels, T frames, H W pixels, K classes.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from timm.models import group_parameters
from timm.optim import create_optimizer_v2
from torch import nn
from torchvision import tv_tensors
from torchvision.transforms import v2

from timesformer_zoo.data.videos import VideoList
from timesformer_zoo.model.timesformer import TimeSformer
from timesformer_zoo.train.recipe import Recipe
from timesformer_zoo.words import counted

__all__ = [
    "class_weights",
    "freeze",
    "make_optimizer",
    "mix_clips",
    "read_class_weights",
    "set_learning_rate",
]


def freeze(model: TimeSformer, layers: str) -> list[nn.Module]:
    """Take the gradient from layers, as `Recipe.freeze` names them; layers are those of timm's layer decay.

    An optimizer made afterwards leaves them out, and so does weight decay. What had no gradient before has none.

    Returns:
        The modules that are frozen as a whole, by this or before. A training step puts them in evaluation mode, so that
        drop path does not disturb what can no longer adapt to it.

    Raises:
        ValueError: more blocks than the model has.
    """
    if layers.isdecimal() and int(layers) > len(model.blocks):
        raise ValueError(f"Recipe.freeze is {layers}; expected at most the model's {len(model.blocks)} blocks.")
    head = {f"head.{name}" for name, _ in model.get_classifier().named_parameters()}
    groups = group_parameters(model, model.group_matcher())  # 0: embeddings, then the blocks
    if layers == "backbone":
        names = {name for name, _ in model.named_parameters()} - head
    else:
        last = {"none": -1, "embed": 0}.get(layers)
        last = int(layers) if last is None else last
        names = {name for group, members in groups.items() if group <= last for name in members} - head
    for name, parameter in model.named_parameters():
        if name in names:
            parameter.requires_grad_(False)
    whole = (module for module in model.modules() if module is not model and any(True for _ in module.parameters()))
    return [module for module in whole if not any(p.requires_grad for p in module.parameters())]


def class_weights(recipe: Recipe, videos: VideoList) -> torch.Tensor | None:
    """Weights (K,) float32 of the classes in the loss; None: all alike.

    "balanced" is scikit-learn's: videos / (classes that have some * videos of the class), so that the mean over the
    videos is 1 and the learning rate means what it did; a class without videos has 1.

    Raises:
        ValueError: another number of weights than there are classes, or the videos have no classes to weigh.
    """
    weights = recipe.class_weights
    if weights is None:
        return None
    if videos.task == "regression" or (isinstance(weights, str) and videos.task != "classes"):
        wanted = "weights of your own" if videos.task == "multilabel" else "no class_weights"
        raise ValueError(
            f"Recipe.class_weights is {weights!r}, and the videos have {videos.things}; expected {wanted}."
        )
    size = len(videos.classes)
    if isinstance(weights, str):  # "balanced", as Recipe has checked
        counts = Counter(sample.target for sample in videos.samples)
        weights = tuple(len(videos.samples) / (len(counts) * counts[i]) if counts[i] else 1.0 for i in range(size))
    if len(weights) != size:
        got = counted(len(weights), "numbers")
        raise ValueError(f"Recipe.class_weights has {got}; expected one for each of {counted(size, 'classes')}.")
    return torch.tensor(weights)


def read_class_weights(path: str | os.PathLike[str], classes: Sequence[str]) -> tuple[float, ...]:
    """Weights by index from a JSON file: {name: weight} of all classes, or a list in their order.

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds something else, or not each class once.
    """
    text = Path(path).read_text(encoding="utf-8")
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: no JSON ({error}); expected {{name: weight}} or a list of weights") from error
    if isinstance(found, dict):
        if found.keys() != set(classes):
            wrong = sorted(found.keys() ^ set(classes))
            raise ValueError(f"{path}: expected a weight for each of the {len(classes)} classes; {wrong[0]!r} differs")
        found = [found[name] for name in classes]
    if not isinstance(found, list) or not all(type(weight) in (int, float) for weight in found):
        raise ValueError(f"{path}: expected {{name: weight}} or a list of weights, all of them numbers")
    return tuple(map(float, found))


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


def mix_clips(recipe: Recipe, num_classes: int) -> Callable[[torch.Tensor, torch.Tensor, int], Any]:
    """MixUp and CutMix of torchvision: (clips (B, C, T, H, W), labels (B,), seed) -> (clips, targets (B, num_classes)).

    All frames of a clip are mixed alike. Without either, or for a single clip, both come back as they are. Which of the
    two, and how much of each clip, follow from the seed alone, whatever the number of clips.
    """
    mixers = [v2.MixUp(alpha=recipe.mixup, num_classes=num_classes)] if recipe.mixup else []
    mixers += [v2.CutMix(alpha=recipe.cutmix, num_classes=num_classes)] if recipe.cutmix else []
    choice = v2.RandomChoice(mixers) if mixers else None

    def mix(clips: torch.Tensor, labels: torch.Tensor, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        if choice is None or len(labels) < 2:
            return clips, labels
        # CutMix looks at the last two dimensions only, so it does not mind C and T the other way round.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            mixed, targets = choice(tv_tensors.Video(clips), labels)
        return mixed.as_subclass(torch.Tensor), targets

    return mix
