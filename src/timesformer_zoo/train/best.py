"""The best epoch of a run by a metric, its weights on the disk, and when to stop waiting for a better one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from timesformer_zoo.data.videos import VideoList
from timesformer_zoo.train import metrics
from timesformer_zoo.train.recipe import Recipe
from timesformer_zoo.train.resume import RunState
from timesformer_zoo.writing import whole_file

__all__ = ["METRICS", "BestWeights", "check_metric", "out_of_patience"]

METRICS: dict[str, str] = {  # value of an epoch's entry -> what is better
    "loss": "lower",
    **{name: better for of_a_kind in metrics.METRICS.values() for name, better in of_a_kind.items()},
}


def check_metric(recipe: Recipe, val: VideoList | None) -> None:
    """Raise ValueError unless each epoch will have the value that `Recipe.best` names."""
    known = ["loss", *(metrics.METRICS[val.task] if val is not None else ())]
    if val is not None and len(val.classes) <= 5 and "top5" in known:
        known.remove("top5")  # says nothing
    if recipe.best not in ("last", *known):
        where, which = ("", f", which {val.things} have") if val is not None else (" without validation", "")
        raise ValueError(f"Recipe.best is {recipe.best!r}; expected{where} last, {' or '.join(known)}{which}.")


def out_of_patience(recipe: Recipe, state: RunState) -> bool:
    """Whether the run has waited long enough for a better epoch. It follows from the state, after a restart as well."""
    if recipe.patience is None or state.best is None or not state.history:
        return False
    return bool(state.history[-1]["epoch"] - state.best["epoch"] >= recipe.patience)


class BestWeights:
    """The best weights so far, in a file named by its step, beside the training states.

    The file is written before the training state that knows of it, and the one before goes once that is saved: whenever
    the run is killed, the newest state's file is there.
    """

    def __init__(self, folder: Path, metric: str) -> None:

        self.folder = folder
        self.metric = metric

    def path(self, best: dict[str, Any]) -> Path:
        return self.folder / f"best-{best['step']:08d}.safetensors"

    def improved(self, state: RunState) -> bool:
        """Whether the last epoch of the history is the best by this metric; if so, the state says so from now on.

        An epoch without a value is not: the correlation of outputs that are all the same, say.
        """
        entry = state.history[-1]
        value = entry.get(self.metric)
        if value is None:
            return False
        if state.best is not None and state.best["metric"] == self.metric:
            better = value < state.best["value"] if METRICS[self.metric] == "lower" else value > state.best["value"]
            if not better:
                return False
        state.best = {"metric": self.metric, "value": value, "epoch": entry["epoch"], "step": state.step}
        return True

    def save(self, best: dict[str, Any], weights: dict[str, torch.Tensor]) -> None:
        with whole_file(self.path(best)) as partial:
            save_file({name: value.contiguous() for name, value in weights.items()}, partial)

    def load(self, best: dict[str, Any]) -> dict[str, torch.Tensor]:
        return load_file(self.path(best))

    def remove_others(self, best: dict[str, Any] | None) -> None:
        for path in self.folder.glob("best-*.safetensors"):
            if best is None or path != self.path(best):
                path.unlink()
