"""What an evaluation gives: metrics, a row a video, and the mean over the folds of a data set."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from timesformer_zoo.data.targets import Target
from timesformer_zoo.results import Prediction
from timesformer_zoo.train.metrics import Scores
from timesformer_zoo.train.objective import OBJECTIVES
from timesformer_zoo.train.plots import plot_confusion
from timesformer_zoo.video.origin import Readable
from timesformer_zoo.words import counted
from timesformer_zoo.writing import to_json, whole_file, write_json

__all__ = ["Evaluation", "Mean", "Outcome", "mean_of"]


@dataclass(frozen=True)
class Outcome:
    """One video of an evaluation."""

    prediction: Prediction  # of the path, and of the part of it from start to end where the list names one
    target: Target  # as the list's `Sample` has it
    label: str | tuple[str, ...] | dict[str, float]  # the target by name: a class, labels, or values
    loss: float  # how wrong: -log of the class's probability; mean of that over the labels; or the mean absolute error
    # of the values, each in standard deviations of the list's

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        said = self.prediction.to_dict()
        said.pop("duration")
        return {"path": said.pop("path"), "target": self.label, "loss": self.loss, **said}


@dataclass(frozen=True)
class Evaluation:
    """The scores of one model on one split. Shares are from 0 to 1."""

    data: str
    split: str
    fold: str | None
    protocol: str
    clips: int
    crops: int
    task: str  # kind of target
    classes: tuple[str, ...]  # or labels, or names of the values
    metrics: Scores  # top1, top5 …; mAP …; mae …: see `train.metrics`
    per_class: dict[str, Scores]  # of each class or label precision, recall, f1, ap, support; of each value mae …
    confusion: tuple[tuple[int, ...], ...] | None  # of classes [target][prediction], number of samples
    videos: tuple[Outcome, ...] = field(repr=False)  # in the order of the list
    skipped: dict[str, str] = field(default_factory=dict)  # path -> why it could not be read; not in any number above
    missing: tuple[str, ...] = ()  # likewise
    content: Callable[[str], Readable] | None = field(default=None, repr=False, compare=False)  # `VideoList.content`

    @property
    def count(self) -> int:
        """Samples that the scores are over."""
        return len(self.videos)

    @property
    def top1(self) -> float | None:
        """Share of the videos whose likeliest class is right; None where there are no classes."""
        return self.metrics.get("top1")

    @property
    def top5(self) -> float | None:
        """Likewise of the five likeliest; None, too, of 5 classes or fewer, where it says nothing."""
        return self.metrics.get("top5")

    @property
    def mean_class_accuracy(self) -> float | None:
        """Mean over the classes that have videos of the share of them that is right."""
        return self.metrics.get("mean_class_accuracy")

    @property
    def card_metrics(self) -> dict[str, float]:
        """The metrics that count, by the names that the Hub has for them."""
        names = OBJECTIVES[self.task].card
        return {name: value for name, key in names.items() if (value := self.metrics[key]) is not None}

    def worst(self, count: int) -> tuple[Outcome, ...]:
        """The videos with the highest loss, the worst first."""
        return tuple(sorted(self.videos, key=lambda video: -video.loss)[:count])

    def to_dict(self) -> dict[str, Any]:
        """Everything but the videos' rows, for JSON; the metrics stand beside the rest."""
        rest = {name: value for name, value in vars(self).items() if name not in ("metrics", "videos", "content")}
        return {**rest, "count": self.count, **self.metrics}

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write results.json, predictions.jsonl (a line a video) and, of classes with matplotlib, confusion.png.

        Raises:
            WriteError: the disk is full, or the folder read-only.
        """
        folder = Path(folder)
        write_json(folder / "results.json", self.to_dict())
        rows = [to_json(video.to_dict()) + "\n" for video in self.videos]
        with whole_file(folder / "predictions.jsonl") as partial:
            partial.write_text("".join(rows), encoding="utf-8")
        if self.confusion is None:
            return
        try:
            plot_confusion(self, folder / "confusion.png")
        except ModuleNotFoundError as error:
            if error.name != "matplotlib":
                raise

    def summary(self) -> str:
        """One line, and one for each video that is not in it."""
        title = f"{self.data} {self.split}" + (f", fold {self.fold}" if self.fold else "")
        lines = [
            f"{title}: {OBJECTIVES[self.task].in_words(self.metrics)} of {counted(self.count, 'videos')} "
            f"({self.protocol} protocol, {self.clips} x {self.crops} views)"
        ]
        lines += [f"  missing: {path}" for path in self.missing]
        lines += [f"  skipped: {reason}" for reason in self.skipped.values()]
        return "\n".join(lines)


@dataclass(frozen=True)
class Mean:
    """Means over the folds of a data set, as UCF101 and HMDB51 are reported."""

    task: str
    metrics: Scores
    folds: tuple[str | None, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"task": self.task, "folds": list(self.folds), **self.metrics}

    def summary(self) -> str:
        """One line."""
        return f"mean over folds {', '.join(map(str, self.folds))}: {OBJECTIVES[self.task].in_words(self.metrics)}"


def mean_of(results: Sequence[Evaluation]) -> Mean:
    """The mean over splits, each counting the same however many videos it has.

    Raises:
        ValueError: no results, or a fold twice, or of different data sets.
    """
    folds = tuple(result.fold for result in results)
    if not results or len(set(folds)) < len(folds) or len({(r.data, r.split, r.protocol, r.task) for r in results}) > 1:
        got = [(r.data, r.split, r.fold, r.protocol, r.task) for r in results]
        raise ValueError(f"Expected one result for each fold of one data set, protocol and task, got {got}.")
    metrics: Scores = {}
    for name in results[0].metrics:
        known = [value for result in results if (value := result.metrics[name]) is not None]
        metrics[name] = sum(known) / len(known) if known else None
    return Mean(results[0].task, metrics, folds)
