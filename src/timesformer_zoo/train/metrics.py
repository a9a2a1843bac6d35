"""Scores of predictions, by the kind of target. Pure: tensors in, numbers out.

All are over every sample at once, so they do not depend on batches or processes. The tests hold them to torchmetrics.
Shares are from 0 to 1. What nothing is known of (a class without samples, values that are all the same) is None.

Legend: N samples, K classes, labels or values.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

__all__ = [
    "METRICS",
    "Scores",
    "average_precision",
    "class_scores",
    "confusion",
    "label_scores",
    "of_classes",
    "of_labels",
    "of_values",
    "value_scores",
]

Scores = dict[str, float | None]

METRICS: dict[str, dict[str, str]] = {
    "classes": dict.fromkeys(
        ("top1", "top5", "mean_class_accuracy", "macro_precision", "macro_f1", "mAP"),
        "higher",
    ),
    "multilabel": dict.fromkeys(
        ("mAP", "macro_precision", "macro_recall", "macro_f1", "micro_precision", "micro_recall", "micro_f1", "exact"),
        "higher",
    ),
    "regression": {
        **dict.fromkeys(("mae", "rmse"), "lower"),
        **dict.fromkeys(("r2", "pearson", "spearman"), "higher"),
    },
}
"""Kind of target -> each of its metrics -> what is better."""


def confusion(probabilities: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """(K, K) counts, [target, likeliest class], of probabilities (N, K) and targets (N,)."""
    size = probabilities.shape[1]
    pairs = targets * size + probabilities.argmax(1)
    return torch.bincount(pairs, minlength=size * size).view(size, size)


def average_precision(scores: torch.Tensor, there: torch.Tensor) -> float | None:
    """Area under the steps of precision over recall, as scikit-learn has it; None where nothing is there.

    Args:
        scores: (N,), higher where it is likelier.
        there: (N,) bool.
    """
    if not there.any():
        return None
    order = scores.argsort(descending=True, stable=True)
    found = there[order].double().cumsum(0)
    precision = found / torch.arange(1, len(found) + 1)
    # Equal scores are taken together: a threshold lets all of them in.
    last = torch.cat([scores[order].diff() != 0, torch.tensor([True])])
    steps = torch.cat([found.new_zeros(1), found[last]]).diff()
    return float((steps * precision[last]).sum() / found[-1])


# ---- a class for each sample ----


def of_classes(probabilities: torch.Tensor, targets: torch.Tensor) -> Scores:
    """Of probabilities (N, K) and the classes' indices (N,). Means over the classes are over those with samples.

    top5 is None for 5 classes or fewer, where it says nothing.
    """
    size = probabilities.shape[1]
    top1 = probabilities.argmax(1) == targets
    top5 = probabilities.topk(min(5, size)).indices == targets.unsqueeze(1)
    macro = _macro(class_scores(probabilities, targets))
    return {
        "top1": _share(int(top1.sum()), len(targets)),
        "top5": _share(int(top5.sum()), len(targets)) if size > 5 else None,
        "mean_class_accuracy": macro.pop("macro_recall"),
        **macro,
    }


def class_scores(probabilities: torch.Tensor, targets: torch.Tensor) -> list[Scores]:
    """Of each class: precision, recall (its top-1 accuracy), f1, ap (average precision) and support (its samples)."""
    there = torch.nn.functional.one_hot(targets, probabilities.shape[1]).bool()
    said = torch.nn.functional.one_hot(probabilities.argmax(1), probabilities.shape[1]).bool()
    return _per_class(probabilities, said, there)


# ---- any number of labels for each sample ----


def of_labels(probabilities: torch.Tensor, targets: torch.Tensor) -> Scores:
    """Of probabilities (N, K), each of its own label, and targets (N, K) of 0 and 1; said is what is at 0.5 or above.

    Means over the labels (macro) are over those that occur; micro counts all pairs of sample and label alike; exact is
    the share of samples with all labels right.
    """
    said, there = probabilities >= 0.5, targets > 0.5
    right, claimed, support = int((said & there).sum()), int(said.sum()), int(there.sum())
    micro = {"micro_precision": _precision(right, claimed), "micro_recall": _share(right, support)}
    micro["micro_f1"] = _f1(right, claimed, support)
    exact = _share(int((said == there).all(1).sum()), len(targets))
    macro = _macro(label_scores(probabilities, targets))
    return {"mAP": macro.pop("mAP"), **macro, **micro, "exact": exact}


def label_scores(probabilities: torch.Tensor, targets: torch.Tensor) -> list[Scores]:
    """Of each label: precision, recall, f1, ap (average precision) and support (samples that have it)."""
    return _per_class(probabilities, probabilities >= 0.5, targets > 0.5)


def _per_class(probabilities: torch.Tensor, said: torch.Tensor, there: torch.Tensor) -> list[Scores]:
    rows: list[Scores] = []
    counts = zip(*((part.sum(0).tolist()) for part in (said & there, said, there)), strict=True)
    for i, (right, claimed, support) in enumerate(counts):
        row = {"precision": _precision(right, claimed) if claimed or support else None}
        row |= {"recall": _share(right, support), "f1": _f1(right, claimed, support)}
        rows.append({**row, "ap": average_precision(probabilities[:, i], there[:, i]), "support": support})
    return rows


def _macro(rows: Sequence[Scores]) -> Scores:
    known = [row for row in rows if row["support"]]
    means = {f"macro_{name}": _mean(row[name] for row in known) for name in ("precision", "recall", "f1")}
    return {**means, "mAP": _mean(row["ap"] for row in known)}


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _precision(right: int, claimed: int) -> float:
    return right / claimed if claimed else 0.0  # as scikit-learn: who never claims a class that is there is not precise


def _f1(right: int, claimed: int, support: int) -> float | None:
    return 2 * right / (claimed + support) if claimed + support else None


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


# ---- values ----


def of_values(predicted: torch.Tensor, targets: torch.Tensor) -> Scores:
    """Of values (N, K): the mean over the values of each score of `value_scores`."""
    rows = value_scores(predicted, targets)
    return {name: _mean(row[name] for row in rows) for name in rows[0]}


def value_scores(predicted: torch.Tensor, targets: torch.Tensor) -> list[Scores]:
    """Of each value: mean absolute error and root mean squared error, in its units; R², Pearson's and Spearman's r."""
    rows: list[Scores] = []
    for said, true in zip(predicted.double().unbind(1), targets.double().unbind(1), strict=True):
        square = float((said - true).square().mean())
        spread = float((true - true.mean()).square().mean())
        rows.append(
            {
                "mae": float((said - true).abs().mean()),
                "rmse": square**0.5,
                "r2": 1 - square / spread if spread else None,
                "pearson": _correlation(said, true),
                "spearman": _correlation(_ranks(said), _ranks(true)),
            }
        )
    return rows


def _correlation(a: torch.Tensor, b: torch.Tensor) -> float | None:
    a, b = a - a.mean(), b - b.mean()
    norm = float(a.norm() * b.norm())
    return float(a @ b) / norm if norm else None


def _ranks(values: torch.Tensor) -> torch.Tensor:
    """From 0; equal values share the mean of theirs."""
    _, places, counts = values.unique(return_inverse=True, return_counts=True)
    return (counts.cumsum(0) - (counts + 1) / 2)[places].double()
