"""The picture of an evaluation's confusion matrix."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import torch

from timesformer_zoo.writing import whole_file

if TYPE_CHECKING:
    from timesformer_zoo.train.evaluation import Evaluation

__all__ = ["plot_confusion"]


def plot_confusion(result: Evaluation, path: str | os.PathLike[str]) -> None:
    """Draw the confusion matrix, each row as shares of the class's samples. Needs matplotlib.

    Args:
        path: of the picture; its suffix says the format.

    Raises:
        ValueError: the result is not of classes.
    """
    if result.confusion is None:
        raise ValueError(f"a confusion matrix is of classes; this result is of kind {result.task!r}")
    from matplotlib.figure import Figure

    counts = torch.tensor(result.confusion, dtype=torch.float64)
    shares = counts / counts.sum(1, keepdim=True).clamp(min=1)
    size = len(result.classes)
    side = min(4 + 0.25 * size, 24.0)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.add_subplot()
    picture = axes.imshow(shares.numpy(), vmin=0, vmax=1, cmap="Blues")
    axes.set_xlabel("prediction")
    axes.set_ylabel("label")
    axes.set_title(f"{result.data} {result.split}: top-1 {result.top1 or 0:.1%} of {result.count}")
    if size <= 101:  # more names than that cannot be read
        axes.set_xticks(range(size), result.classes, rotation=90, fontsize=8)
        axes.set_yticks(range(size), result.classes, fontsize=8)
    if size <= 20:
        for i in range(size):
            for j in range(size):
                colour = "white" if shares[i, j] > 0.5 else "black"
                axes.text(j, i, str(int(counts[i, j])), ha="center", va="center", color=colour, fontsize=8)
    figure.colorbar(picture, ax=axes, shrink=0.7)
    with whole_file(path) as partial:
        figure.savefig(partial, dpi=120)
