"""Experiment trackers by name, through accelerate: TensorBoard, Weights & Biases, Trackio and what else it knows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timesformer_zoo.train.recipe import Recipe

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["check_trackers", "start_trackers"]


def check_trackers(names: Iterable[str]) -> list[str]:
    """The names, for `Accelerator(log_with=…)`, which itself says nothing of a tracker that is not installed.

    Raises:
        ValueError: accelerate knows no such tracker.
        ModuleNotFoundError: the tracker's package is not installed.
    """
    from accelerate import __version__
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    names = list(names)
    there = {str(name) for name in get_available_trackers()}
    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            known = ", ".join(sorted(LOGGER_TYPE_TO_CLASS))
            raise ValueError(f"accelerate {__version__} knows no tracker {name!r}; it knows {known}.")
        if name not in there:
            raise ModuleNotFoundError(f"no package for the tracker {name}", name=name)
    return names


def start_trackers(accelerator: Accelerator, recipe: Recipe, folder: Path) -> None:
    """Open the accelerator's trackers: a run is named after its folder, and goes on under that name after a restart."""
    place = folder.resolve()
    name = f"{place.name}-{hashlib.blake2b(str(place).encode(), digest_size=3).hexdigest()}"
    options: dict[str, dict[str, Any]] = {
        "wandb": {"dir": str(folder), "name": place.name, "id": name, "resume": "allow"},
        "trackio": {"name": name, "resume": "allow"},
    }
    plain = (bool, int, float, str)
    settings = {field: v if isinstance(v, plain) else str(v) for field, v in recipe.to_dict().items()}
    used = {str(getattr(tracker, "value", tracker)) for tracker in accelerator.log_with}
    chosen = {tracker: given for tracker, given in options.items() if tracker in used}
    accelerator.init_trackers("timesformer-zoo", config=settings, init_kwargs=chosen)
