"""Where a run begins, and why it ended, in words."""

from __future__ import annotations

from pathlib import Path

from timesformer_zoo.train.best import out_of_patience
from timesformer_zoo.train.recipe import Recipe, step_learning_rate
from timesformer_zoo.train.resume import RunState

__all__ = ["begins_at", "stopped_early"]


def begins_at(recipe: Recipe, state: RunState, steps_per_epoch: int, place: Path) -> list[str]:
    """What is to be said of a run that goes on from the training state in `place`."""
    epoch, total = state.step / steps_per_epoch, recipe.epochs * steps_per_epoch
    if out_of_patience(recipe, state):
        lines = [f"{stopped_early(recipe, state)}; nothing to train (a greater patience goes on)"]
    elif state.is_evaluation_due(steps_per_epoch):
        lines = [f"resuming with the evaluation of epoch {int(epoch)} of {recipe.epochs}, from {place}"]
    elif state.step == total:
        lines = [f"finished: {recipe.epochs} of {recipe.epochs} epochs are done; nothing to train (more extend it)"]
    else:
        lines = [
            f"resuming at epoch {int(epoch) + 1} of {recipe.epochs}, step {state.step} of {total}, learning rate "
            f"{step_learning_rate(recipe, state.step, steps_per_epoch):.3g}, from {place}"
        ]
    if changed := [f"{name} was {then} and is now {now}" for name, (then, now) in state.changes().items()]:
        lines.append(f"  the recipe has changed: {'; '.join(changed)}")
    return lines


def stopped_early(recipe: Recipe, state: RunState) -> str:
    """Of a run that is out of patience."""
    best, last = state.best or {}, state.history[-1]["epoch"]
    return (
        f"stopped after epoch {last} of {recipe.epochs}: {best['metric']} was best in epoch {best['epoch']} "
        f"({best['value']:.4g})"
    )
