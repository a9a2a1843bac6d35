"""A linear probe: a new head on features of a model that is not trained, which are computed once.

The head is fitted by L-BFGS, for each of several weight decays, and the best on validation is taken, as in Radford et
al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021, arXiv 2103.00020, appendix A.3.

Legend: N views of all videos, D features, K classes.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F

from timesformer_zoo.data.batches import OnError
from timesformer_zoo.data.order import seed_of
from timesformer_zoo.data.videos import VideoList
from timesformer_zoo.prediction import fuse_views
from timesformer_zoo.train.features import cached_features, rows_of
from timesformer_zoo.train.finetune import Finetuned
from timesformer_zoo.train.optim import class_weights
from timesformer_zoo.train.recipe import Recipe
from timesformer_zoo.train.run import PathLike, check_model
from timesformer_zoo.video.clip import clip_spec
from timesformer_zoo.words import counted

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["PROBE_FIELDS", "WEIGHT_DECAYS", "probe"]

WEIGHT_DECAYS = tuple(10.0**power for power in range(2, -7, -1))
"""Tried one after the other, each from the weights of the one before: on standardised features, times half of the
squared weights, beside the mean loss."""

PROBE_FIELDS = ("class_weights", "label_smoothing", "repeats", "seed")
"""Fields of a recipe that a probe looks at."""


def probe(
    model: nn.Module,
    videos: VideoList,
    recipe: Recipe,
    folder: PathLike,
    *,
    val: VideoList | None = None,
    weight_decays: Sequence[float] = WEIGHT_DECAYS,
    accelerator: Accelerator | None = None,
    workers: int = 0,
    on_error: OnError = "fail",
    progress: bool = True,
) -> Finetuned:
    """Fit a linear head on the model's features.

    Args:
        model: a TimeSformer with as many classes as the videos have; it stays as it is.
        videos: to fit the head on: their test views and, where the recipe's `repeats` is more than 1, so many random
            training clips of each less one.
        recipe: of it, `PROBE_FIELDS`.
        folder: its `features` keeps what was computed, for the next call; shared by all machines.
        val: chooses the weight decay, by top-1 and then by loss. None: a fifth of the videos of each class, chosen by
            the seed, does, and the head is then fitted on all.
        weight_decays: to try.
        accelerator, workers, on_error, progress: as `finetune` takes them; all processes compute features.

    Returns:
        The model with the head; its history has an entry for each weight decay, the one that was taken with "chosen".

    Raises:
        ValueError: the model does not fit the videos, or these have not one class each, or are too few to choose by.
        MissingVideosError, VideoReadError: a video is missing or unreadable and on_error is "fail".
    """
    if accelerator is None:
        from accelerate import Accelerator

        accelerator = Accelerator()
    targets = videos.one_class_each("a probe")
    val_targets = val.one_class_each("a probe") if val is not None else []
    model = copy.deepcopy(check_model(model, videos)).to(accelerator.device).eval()
    options: dict[str, Any] = dict(workers=workers, on_error=on_error, progress=progress, seed=recipe.seed)
    cache, skipped = Path(folder) / "features", {}
    train = []
    layer: Any = model.get_classifier()
    model.head = nn.Identity()  # what it gives is then what the head sees
    for augmented in range(recipe.repeats):
        some, reasons = cached_features(model, videos, cache, accelerator, augmented=augmented, **options)
        train.append(some)
        skipped.update(reasons)
    fuse = clip_spec(model).fuse
    if val is None:
        held = _fifth(targets, recipe.seed)
        kept = [{i: rows for i, rows in some.items() if i not in held} for some in train]
        judges, judged_by = {i: rows for i, rows in train[0].items() if i in held}, targets
    else:
        kept = train
        judges, reasons = cached_features(model, val, cache, accelerator, **options)
        skipped.update(reasons)
        judged_by = val_targets
    if not judges or not any(kept):
        number = counted(len(targets), "videos")
        raise ValueError(f"Got {number}, expected enough to fit a head on some and to choose a weight decay by others.")
    weights = class_weights(recipe, videos)
    head = _Head(kept, targets, model.num_classes, weights, recipe.label_smoothing)
    history: list[dict[str, Any]] = []
    fitted: list[tuple[torch.Tensor, torch.Tensor]] = []
    for decay in weight_decays:
        loss = head.fit(decay)
        fitted.append(head.linear())
        scores = _judge(*fitted[-1], judges, judged_by, fuse)
        history.append({"weight_decay": decay, "loss": loss, **scores})
    chosen = max(range(len(history)), key=lambda i: (history[i]["top1"], -history[i]["val_loss"]))
    weight, bias = fitted[chosen]
    if val is None:
        head = _Head(train, targets, model.num_classes, weights, recipe.label_smoothing)
        for decay in weight_decays[: chosen + 1]:
            head.fit(decay)
        weight, bias = head.linear()
    model.head = layer
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    history[chosen]["chosen"] = True
    return Finetuned(model, history, skipped)


class _Head:
    """A linear layer on standardised features; float64 and on the CPU, so that it is the same everywhere."""

    def __init__(
        self,
        features: Sequence[dict[int, torch.Tensor]],
        targets: list[int],
        classes: int,
        weights: torch.Tensor | None,
        smoothing: float,
    ) -> None:
        rows, self.targets = rows_of(features, targets)
        rows = rows.double()
        self.mean, self.scale = rows.mean(0), rows.std(0, correction=0).clamp(min=1e-6)
        self.rows = (rows - self.mean) / self.scale
        self.class_weights = None if weights is None else weights.double()
        self.smoothing = smoothing
        self.weight = torch.zeros(classes, rows.shape[1], dtype=torch.float64, requires_grad=True)
        self.bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)

    def fit(self, decay: float) -> float:
        """To the minimum, from where it is; the mean loss there, without the decay's part."""
        optimizer = torch.optim.LBFGS(
            [self.weight, self.bias], max_iter=500, tolerance_grad=1e-6, line_search_fn="strong_wolfe"
        )

        def loss() -> torch.Tensor:
            logits = F.linear(self.rows, self.weight, self.bias)
            total = F.cross_entropy(
                logits, self.targets, self.class_weights, label_smoothing=self.smoothing, reduction="sum"
            )
            return total / len(self.rows)

        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            value = loss() + decay / 2 * self.weight.square().sum()
            value.backward()
            return value

        optimizer.step(closure)
        with torch.no_grad():
            return float(loss())

    def linear(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight (K, D) and bias (K,) for features as they are."""
        weight = self.weight.detach() / self.scale
        return weight, self.bias.detach() - weight @ self.mean


def _judge(
    weight: torch.Tensor, bias: torch.Tensor, features: dict[int, torch.Tensor], targets: list[int], fuse: Any
) -> dict[str, float]:
    """Scores on the videos, whose views are fused as `evaluate` does."""
    fused = torch.stack([fuse_views(F.linear(rows.double(), weight, bias), fuse) for rows in features.values()])
    labels = torch.tensor([targets[i] for i in features])
    right = (fused.argmax(1) == labels).double().mean()
    return {"val_loss": float(F.nll_loss(fused, labels)), "top1": float(right)}


def _fifth(targets: list[int], seed: int) -> set[int]:
    """A fifth of the samples of each class, at least one where it has two."""
    generator = torch.Generator().manual_seed(seed_of(seed, len(targets)))
    held: set[int] = set()
    for target in sorted(set(targets)):
        members = [i for i, other in enumerate(targets) if other == target]
        order = torch.randperm(len(members), generator=generator).tolist()
        count = max(len(members) // 5, 1) if len(members) > 1 else 0
        held.update(members[j] for j in order[:count])
    return held
