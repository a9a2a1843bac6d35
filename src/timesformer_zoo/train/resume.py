"""Training states of a run: whole or not there at all, refused where they do not fit, and of no number of processes.

Weights, their average and the optimizer's state are written by torch.distributed.checkpoint, by name and with the place
of each shard: one process, DDP and FSDP2, over any number of processes, read what any of them wrote. accelerate's own
`save_state` writes one format for each, and leaves out the shards of an average.
"""

from __future__ import annotations

import os
import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import get_state_dict, set_optimizer_state_dict
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from timesformer_zoo.train.average import WeightAverage
from timesformer_zoo.train.recipe import MAY_CHANGE
from timesformer_zoo.writing import flush, flush_tree, whole_file, writing

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["RunState", "TrainingState", "checkpoints_in", "save_checkpoint"]


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
                    f"The training state was made with {name} = {then}, now it is {now}. Use the same to go on, or "
                    f"another folder to start anew. Of a recipe, {', '.join(sorted(MAY_CHANGE))} may change."
                )
        self.recipe_before = state["recipe"]
        kept = ("identity", "recipe", "recipe_before")
        vars(self).update({name: value for name, value in state.items() if name not in kept})

    def is_evaluation_due(self, steps_per_epoch: int) -> bool:
        """Whether an epoch's steps are done, and the history does not have it yet."""
        done, rest = divmod(self.step, steps_per_epoch)
        return not rest and done > len(self.history)

    def changes(self) -> dict[str, tuple[Any, Any]]:
        """Fields of the recipe -> (value when the state was saved, value now), where they differ."""
        before = self.recipe_before or self.recipe
        return {name: (before[name], now) for name, now in self.recipe.items() if before[name] != now}


@dataclass
class TrainingState:
    """All that a run goes on from. Saved and loaded by all processes together."""

    accelerator: Accelerator
    model: nn.Module  # this and the optimizer as accelerate prepared them
    optimizer: Any
    average: WeightAverage | None
    run: RunState

    def save(self, folder: Path) -> None:
        """Write to a folder, which all processes share."""
        with _distributed():
            save(self._tensors(), checkpoint_id=folder)
        if self.accelerator.is_main_process:
            self.save_run(folder)

    def save_run(self, folder: Path) -> None:
        """Write to the folder of a state what is no tensor: of a run whose weights are still those that it has."""
        scaler = self.accelerator.scaler
        with whole_file(folder / "run.pt") as partial:
            torch.save({"run": self.run.state_dict(), "scaler": scaler and scaler.state_dict()}, partial)

    @staticmethod
    def run_in(folder: Path) -> dict[str, Any]:
        """What a folder has besides tensors: the state of the run ("run", see `RunState`) and of the scaler."""
        found: dict[str, Any] = torch.load(folder / "run.pt", weights_only=True)
        return found

    def load(self, folder: Path) -> None:
        """Go on from what a folder has.

        Raises:
            ValueError: it is another run's.
        """
        rest = self.run_in(folder)
        self.run.load_state_dict(rest["run"])
        if self.accelerator.scaler is not None and rest["scaler"]:
            self.accelerator.scaler.load_state_dict(rest["scaler"])
        tensors = self._tensors()
        with _distributed():
            load(tensors, checkpoint_id=folder)  # in place, but for the optimizer's numbers
        set_optimizer_state_dict(self.model, self.optimizer.optimizer, tensors["optimizer"])

    def _tensors(self) -> dict[str, Any]:
        weights, optimizer = get_state_dict(self.model, self.optimizer.optimizer)
        average = {} if self.average is None else {"average": self.average.weights}
        return {"model": weights, "optimizer": optimizer, **average}


@contextmanager
def _distributed() -> Iterator[None]:
    """Errors of torch.distributed.checkpoint as what caused them, and no warning that there is one process."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is")
        try:
            yield
        except CheckpointException as error:  # no Exception, but a BaseException
            cause, _ = next(iter(error.failures.values()))
            raise cause from error


def save_checkpoint(state: TrainingState, folder: Path, keep: int = 2) -> None:
    """Write a training state to a folder of another name, then give it its own: what has the name is whole.

    Called by all processes. Older ones but the last `keep` are removed.
    """
    accelerator, step = state.accelerator, state.run.step
    final, partial = folder / f"step-{step:08d}", folder / f"partial-{step:08d}"
    if accelerator.is_main_process:
        for stale in folder.glob("partial-*"):
            shutil.rmtree(stale) if stale.is_dir() else stale.unlink()
        folder.mkdir(parents=True, exist_ok=True)
    accelerator.wait_for_everyone()
    with writing(partial):
        state.save(partial)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        flush_tree(partial)
        os.replace(partial, final)
        flush(folder)
        for old in checkpoints_in(folder)[:-keep]:
            # By another name first: removing a folder is not done at once, and what has the name is whole.
            shutil.rmtree(old.rename(folder / f"partial-{old.name}"))
    accelerator.wait_for_everyone()


def checkpoints_in(folder: Path) -> list[Path]:
    """Whole checkpoints, oldest first."""
    return sorted(path for path in folder.glob("step-*") if re.fullmatch(r"step-\d+", path.name))
