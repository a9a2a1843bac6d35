"""What a model's classes are called.

Labels belong to the head that was trained for them: they are bound to it when its weights are loaded, and a new head
(`reset_classifier`, or another `num_classes` on creation) has none until `set_labels` gives it some.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from typing import Any

__all__ = [
    "Labels",
    "known_labels",
    "label_names",
    "label_set",
    "model_labels",
    "set_labels",
]

Labels = Sequence[str] | Mapping[int, str] | Mapping[str, str] | str

_LABELS = "label_names"  # an attribute of the head and not of the model: a new head can never inherit another's


def label_set(name: str) -> list[str]:
    """The class names of a data set, by index.

    Args:
        name: a file of assets/labels/: "kinetics400", "something_something_v2" …

    Raises:
        ValueError: there is no such set; the message lists all.
    """
    return list(_label_set(name))


@lru_cache
def _label_set(name: str) -> tuple[str, ...]:
    folder = files("timesformer_zoo") / "assets" / "labels"
    known = sorted(entry.name.removesuffix(".txt") for entry in folder.iterdir() if entry.name.endswith(".txt"))
    if name not in known:
        raise ValueError(f"There is no label set {name!r}; there are {', '.join(known)}.")
    return tuple((folder / f"{name}.txt").read_text(encoding="utf-8").splitlines())


def model_labels(model: Any) -> list[str]:
    """The names of a model's classes, by index; "class 0", "class 1" … where they are not known.

    Known are those of weights loaded by `pretrained=True`: a repository's own (`hf-hub:`, `local-dir:`), else the
    checkpoint table's; and those given by `set_labels`. A head that was made anew has none, also where it has as many
    classes as the old one. Two things cannot be seen from here and need `set_labels`: a loaded head that was then
    trained for other classes without being made anew, and a file given as `pretrained_cfg_overlay=dict(file=…)` whose
    classes are others than those of the tag it stands in for.
    """
    return known_labels(model) or [f"class {index}" for index in range(model.num_classes)]


def known_labels(model: Any) -> list[str] | None:
    """The labels bound to a model's head, by index; None where its classes have no names."""
    names: Sequence[str] | None = getattr(model.head, _LABELS, None)
    return list(names) if names is not None else None


def set_labels(model: Any, labels: Labels | None) -> None:
    """Name the classes of a model's present head.

    Args:
        model: changed in place.
        labels: see `label_names`; None to forget them.

    Raises:
        ValueError: not as many names as classes.
    """
    setattr(model.head, _LABELS, None if labels is None else tuple(label_names(labels, model.num_classes)))


def label_names(labels: Labels, num_classes: int) -> list[str]:
    """The names of classes, by index.

    Args:
        labels: the names by index; or index -> name, where gaps are named by their index; or the name of a label set.
        num_classes: how many they must be.

    Raises:
        ValueError: they are not, or there is no such label set.
    """
    if isinstance(labels, str):
        labels = label_set(labels)
    if isinstance(labels, Mapping):
        by_index = {int(index): name for index, name in labels.items()}  # JSON has no int keys
        if outside := [index for index in by_index if not 0 <= index < num_classes]:
            raise ValueError(f"Got labels for classes {outside[:5]}; there are classes 0 to {num_classes - 1}.")
        labels = [by_index.get(index, f"class {index}") for index in range(num_classes)]
    if len(labels) != num_classes:
        raise ValueError(f"Got {len(labels)} labels for {num_classes} classes: give one a class, in their order.")
    return [str(label) for label in labels]
