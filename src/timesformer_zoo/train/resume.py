"""Checkpoints of a training run: whole or not there at all, and refused where they do not fit."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timesformer_zoo.train.recipe import MAY_CHANGE

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["RunState", "checkpoints_in", "flush", "save_checkpoint"]


@dataclass
class RunState:
    """What a checkpoint holds besides weights and optimizer."""

    identity: dict[str, Any]  # what must be the same to go on: data, model, and most of the recipe
    recipe: dict[str, Any]  # all of it
    step: int = 0  # optimizer steps done
    loss: float = 0.0  # sums over the epoch so far
    seen: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    best: dict[str, Any] | None = None  # metric, value, epoch, step
    recipe_before: dict[str, Any] | None = None  # what the state that was loaded was saved with

    def state_dict(self) -> dict[str, Any]:
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, now in self.identity.items():
            if (then := state["identity"].get(name)) != now:
                raise ValueError(
                    f"The checkpoint was made with {name} = {then}, now it is {now}. Use the same to go on, or another "
                    f"folder to start anew. Of a recipe, {', '.join(sorted(MAY_CHANGE))} may change."
                )
        self.recipe_before = state["recipe"]
        kept = ("identity", "recipe", "recipe_before")
        vars(self).update({name: value for name, value in state.items() if name not in kept})

    def changes(self) -> dict[str, tuple[Any, Any]]:
        """Fields of the recipe -> (value when the state was saved, value now), where they differ."""
        before = self.recipe_before or self.recipe
        return {name: (before[name], now) for name, now in self.recipe.items() if before[name] != now}


def save_checkpoint(accelerator: Accelerator, folder: Path, step: int, keep: int = 2) -> None:
    """Write all that accelerate knows to a folder of another name, then give it its own: what has the name is whole.

    Called by all processes. Older checkpoints but the last `keep` are removed.
    """
    final, partial = folder / f"step-{step:08d}", folder / f"partial-{step:08d}"
    if accelerator.is_main_process:
        for stale in folder.glob("partial-*"):
            shutil.rmtree(stale) if stale.is_dir() else stale.unlink()
        folder.mkdir(parents=True, exist_ok=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(partial))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        for path in partial.rglob("*"):
            flush(path)
        os.replace(partial, final)
        for old in checkpoints_in(folder)[:-keep]:
            shutil.rmtree(old)
    accelerator.wait_for_everyone()


def checkpoints_in(folder: Path) -> list[Path]:
    """Whole checkpoints, oldest first."""
    return sorted(path for path in folder.glob("step-*") if re.fullmatch(r"step-\d+", path.name))


def flush(path: Path) -> None:
    """To the disk, so that not even a power failure leaves a named checkpoint without its content."""
    if path.is_file():
        with path.open("rb") as file:
            os.fsync(file.fileno())
