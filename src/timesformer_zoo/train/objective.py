"""What training minimises, for each kind of target: one entry of `OBJECTIVES`.

Legend: N clips, K classes, labels or values: as many as the model has outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch.nn import functional as F

__all__ = ["OBJECTIVES", "Objective"]


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


@dataclass(frozen=True)
class Objective:
    """What one kind of target is trained by."""

    loss: Loss
    best: str  # the metric that says which training state is the best, as the history names it
    higher: bool = True  # whether more of it is better


OBJECTIVES: dict[str, Objective] = {
    "classes": Objective(_cross_entropy, best="top1"),
    "multilabel": Objective(_binary_cross_entropy, best="mAP"),
    "regression": Objective(_smooth_l1, best="mae", higher=False),
}
"""Kind of target (`ClipSpec.task`, `VideoList.task`) -> how it is trained."""
