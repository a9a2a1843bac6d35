"""Checkpoints of a training run: whole or not there at all, and refused where they do not fit."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timesformer_zoo.writing import flush, flush_tree, writing

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["RunState", "checkpoints_in", "save_checkpoint"]


@dataclass
class RunState:
    """What a checkpoint holds besides weights and optimizer."""

    identity: dict[str, Any]  # what must be the same to go on: recipe and data
    step: int = 0  # optimizer steps done
    loss: float = 0.0  # sums over the epoch so far
    seen: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)

    def state_dict(self) -> dict[str, Any]:
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, now in self.identity.items():
            if (then := state["identity"].get(name)) != now:
                raise ValueError(
                    f"The checkpoint was made with {name} = {then}, now it is {now}. Use the same to go on, or another "
                    "folder to start anew."
                )
        vars(self).update(state)


def save_checkpoint(accelerator: Accelerator, folder: Path, step: int, keep: int = 2) -> None:
    """Write all that accelerate knows to a folder of another name, then give it its own: what has the name is whole.

    Called by all processes. Older checkpoints but the last `keep` are removed.
    """
    final, partial = folder / f"step-{step:08d}", folder / f"partial-{step:08d}"
    if accelerator.is_main_process:
        for stale in folder.glob("partial-*"):
            shutil.rmtree(stale)
        folder.mkdir(parents=True, exist_ok=True)
    accelerator.wait_for_everyone()
    with writing(partial):
        accelerator.save_state(str(partial))
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
