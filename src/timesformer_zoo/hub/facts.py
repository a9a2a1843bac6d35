"""What a model card says that the model itself does not know: kept beside the model in card.json, and with it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from timesformer_zoo.errors import CheckpointError

__all__ = ["FACTS", "CardFacts", "Result", "parse_facts"]

FACTS = "card.json"


@dataclass(frozen=True)
class Result:
    """What was measured on one data set."""

    metrics: Mapping[str, float]  # "accuracy", "top_5_accuracy", "mean_class_accuracy" …: from 0 to 1
    data: str | None = None  # in words
    split: str | None = None
    how: str | None = None  # in words: views, protocol, number of videos

    def replaces(self, other: Result) -> bool:
        """Whether both are of the same data."""
        return (self.data, self.split) == (other.data, other.split)


@dataclass(frozen=True)
class CardFacts:
    """What a model card says that the model itself does not know.

        facts = CardFacts(training_data="Our 200 videos", recipe=recipe.to_dict(), history=done.history)
        save_pretrained(done.model, "mine", facts=facts)

    Raises:
        CheckpointError: a value is not of the kind that it must be.
    """

    training_data: str | None = None  # in words
    datasets: Sequence[str] = ()  # it was trained on, as OWNER/NAME on the Hub
    recipe: Mapping[str, Any] | None = None  # what it was trained with, as `Recipe.to_dict` gives it
    history: Sequence[Mapping[str, Any]] = ()  # an entry an epoch, as `Finetuned.history` has them
    results: Sequence[Result] = ()
    license: str | None = None  # an identifier as the Hub has it; None: that of the weights it started from
    example: str | None = None  # name of a video beside the model, for the widget

    def __post_init__(self) -> None:
        for name in ("datasets", "history", "results"):
            if isinstance(getattr(self, name), str):
                raise CheckpointError(f"CardFacts.{name} is {getattr(self, name)!r}, expected a list")
        results = [result if isinstance(result, Result) else _known(Result, result) for result in self.results]
        object.__setattr__(self, "results", tuple(results))

    def with_result(self, result: Result) -> CardFacts:
        """With a result more, in place of an earlier one of the same data."""
        return replace(self, results=(*(old for old in self.results if not result.replaces(old)), result))

    def to_dict(self) -> dict[str, Any]:
        """What is known, for JSON."""
        return {name: value for name, value in asdict(self).items() if value not in (None, (), [])}


def parse_facts(text: str, source: str | os.PathLike[str]) -> CardFacts:
    """The facts of a card.json.

    Args:
        text: the file's content.
        source: where it is, for the error.

    Raises:
        CheckpointError: it is not what `CardFacts.to_dict` makes.
    """
    try:
        return _known(CardFacts, json.loads(text))
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{Path(source)}: {error}; correct it, or remove it and give the card's facts") from error


def _known(kind: type, values: Any) -> Any:
    names = [field.name for field in fields(kind)]
    if not isinstance(values, dict) or (unknown := [name for name in values if name not in names]):
        got = f"an unknown {unknown[0]!r}" if isinstance(values, dict) else type(values).__name__
        raise CheckpointError(f"{kind.__name__}: got {got}, expected an object with {', '.join(names)}")
    return kind(**values)
