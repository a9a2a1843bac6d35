"""What training minimises and evaluation counts, for each kind of target: one entry of `OBJECTIVES`.

Legend: N clips or videos; K classes, labels or values: as many as the model has outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch.nn import functional as F

from timesformer_zoo.train.metrics import (
    Scores,
    class_scores,
    label_scores,
    of_classes,
    of_labels,
    of_values,
    value_scores,
)

__all__ = ["OBJECTIVES", "Objective", "Scale"]


class Loss(Protocol):
    """How wrong outputs are, summed over the clips: whoever takes the mean knows over how many, on all processes."""

    def __call__(
        self, outputs: torch.Tensor, targets: torch.Tensor, smoothing: float = 0.0, weight: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Args:
        outputs: of the model, (N, K) float32.
        targets: classes: their indices (N,), or shares (N, K) as mixing gives them; multilabel: (N, K) of 0 and 1, or
            between; regression: standardised values (N, K).
        smoothing: of the targets, towards what says nothing; regression has none, and does not look at it.
        weight: a weight of each class or label, (K,), on the device of the outputs. Classes: a clip counts by the
            weight of its class; multilabel: a label that is there counts by its weight against its absence. The sum is
            not divided by the weights': give such whose mean over the training clips is 1 to keep the learning rate.

        Raises:
            ValueError: weights for values.
        """
        ...


def _cross_entropy(
    outputs: torch.Tensor, targets: torch.Tensor, smoothing: float = 0.0, weight: torch.Tensor | None = None
) -> torch.Tensor:
    return F.cross_entropy(outputs, targets, weight, label_smoothing=smoothing, reduction="sum")


def _binary_cross_entropy(
    outputs: torch.Tensor, targets: torch.Tensor, smoothing: float = 0.0, weight: torch.Tensor | None = None
) -> torch.Tensor:
    """The mean over the labels, so that a learning rate does not depend on how many there are."""
    targets = targets * (1 - smoothing) + smoothing / 2
    return F.binary_cross_entropy_with_logits(outputs, targets, pos_weight=weight, reduction="sum") / outputs.shape[1]


def _smooth_l1(
    outputs: torch.Tensor, targets: torch.Tensor, smoothing: float = 0.0, weight: torch.Tensor | None = None
) -> torch.Tensor:
    """The mean over the values. Half of the square up to one standard deviation, then linear: outliers pull less."""
    if weight is not None:
        raise ValueError("weights are for classes and labels; a regression has values: leave them out")
    return F.smooth_l1_loss(outputs, targets, reduction="sum") / outputs.shape[1]


def _log_loss(probabilities: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return F.nll_loss(probabilities.clamp(min=torch.finfo(probabilities.dtype).tiny).log(), targets, reduction="none")


def _label_loss(probabilities: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return F.binary_cross_entropy(probabilities, targets.to(probabilities.dtype), reduction="none").mean(1)


def _value_loss(values: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return ((values - targets).abs() / _spread(targets)).mean(1)


def _spread(values: torch.Tensor) -> torch.Tensor:
    """The standard deviation of each value, (N, K) -> (K,); 1 where all are the same."""
    spread = values.std(0, correction=0)
    return torch.where(spread > 0, spread, 1.0)


@dataclass(frozen=True)
class Objective:
    """What one kind of target is trained by and judged by.

    Scores are what views were fused to, (N, K): probabilities of classes, of labels each, or values in their units.
    Targets are (N,) int64 classes, (N, K) of 0 and 1, or (N, K) values.
    """

    loss: Loss
    losses: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # scores, targets -> how wrong each video is, (N,)
    metrics: Callable[[torch.Tensor, torch.Tensor], Scores]  # scores, targets -> metrics by name, those of `METRICS`
    per_class: Callable[[torch.Tensor, torch.Tensor], list[Scores]]  # likewise, of each class, label or value
    words: dict[str, str]  # metric -> how a line of results says it
    card: dict[str, str]  # metric as the Hub names it -> its name here
    best: str  # the metric that says which epoch is the best, as the history names it; `METRICS` says what is better
    scaled: bool = False  # whether targets are standardised in training: see `Scale`

    def in_words(self, metrics: Scores) -> str:
        """The metrics that count, in one line."""
        return ", ".join(form.format(metrics[name]) for name, form in self.words.items() if metrics[name] is not None)


OBJECTIVES: dict[str, Objective] = {
    "classes": Objective(
        loss=_cross_entropy,
        losses=_log_loss,
        metrics=of_classes,
        per_class=class_scores,
        words={"top1": "top-1 {:.2%}", "top5": "top-5 {:.2%}", "mean_class_accuracy": "mean over classes {:.2%}"},
        card={"accuracy": "top1", "top_5_accuracy": "top5", "mean_class_accuracy": "mean_class_accuracy"},
        best="top1",
    ),
    "multilabel": Objective(
        loss=_binary_cross_entropy,
        losses=_label_loss,
        metrics=of_labels,
        per_class=label_scores,
        words={"mAP": "mAP {:.2%}", "macro_f1": "F1 {:.2%} (mean over labels)", "micro_f1": "{:.2%} (over all pairs)"},
        card={"mean_average_precision": "mAP", "f1": "macro_f1"},
        best="mAP",
    ),
    "regression": Objective(
        loss=_smooth_l1,
        losses=_value_loss,
        metrics=of_values,
        per_class=value_scores,
        words={"mae": "mean absolute error {:.6g}", "r2": "R² {:.3f}", "pearson": "Pearson's r {:.3f}"},
        card={"mae": "mae", "r_squared": "r2", "pearsonr": "pearson"},
        best="mae",
        scaled=True,
    ),
}
"""Kind of target (`ClipSpec.task`, `VideoList.task`) -> how it is trained and judged."""


@dataclass(frozen=True)
class Scale:
    """Mean and standard deviation of each value over the training videos, (K,): training sees (value - mean) / std.

    Only in training: before it the head of a model that is a regression already is made to give such values, and
    afterwards to give them in their units again, so that a model's outputs are in the units of its list wherever it is
    used. Both are affine maps of the head's weight and bias, exact up to rounding.
    """

    mean: torch.Tensor
    std: torch.Tensor

    @classmethod
    def of(cls, values: torch.Tensor) -> Scale:
        """That of training values (N, K)."""
        return cls(values.double().mean(0), _spread(values.double()))

    def standardise(self, values: torch.Tensor) -> torch.Tensor:
        """(N, K), in their units -> standardised."""
        return ((values - self.mean.to(values)) / self.std.to(values)).to(values.dtype)

    def to_units(self, outputs: torch.Tensor) -> torch.Tensor:
        """(N, K), standardised -> in their units."""
        return (outputs * self.std.to(outputs) + self.mean.to(outputs)).to(outputs.dtype)

    @contextmanager
    def outputs_in_units(self, model: Any) -> Iterator[None]:
        """While a model that is trained is looked at, its outputs are values in their units, float64.

        Args:
            model: as accelerate prepared it. Of a part of it, outputs may be in half precision, which is too coarse for
                values far from 0, and torch.compile would not see the change.
        """
        hook = model.register_forward_hook(lambda model, args, outputs: self.to_units(outputs.double()))
        try:
            yield
        finally:
            hook.remove()

    @torch.no_grad()
    def head_to_units(self, head: Any) -> None:
        """A linear head that gives standardised values gives them in their units from now on."""
        head.weight.copy_(head.weight.double() * self.std.to(head.weight.device)[:, None])
        head.bias.copy_(self.to_units(head.bias.double()))

    @torch.no_grad()
    def head_to_standard(self, head: Any) -> None:
        """The inverse of `head_to_units`."""
        head.weight.copy_(head.weight.double() / self.std.to(head.weight.device)[:, None])
        head.bias.copy_(self.standardise(head.bias.double()))
