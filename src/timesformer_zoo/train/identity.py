"""What makes a run the one that it is, so that it does not go on from the training state of another."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Any

from timesformer_zoo.data.videos import VideoList
from timesformer_zoo.model.timesformer import TimeSformer
from timesformer_zoo.train.recipe import MAY_CHANGE, Recipe
from timesformer_zoo.video.remote import masked
from timesformer_zoo.weights.digest import weights_digest
from timesformer_zoo.words import counted

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["identity_of"]


def identity_of(recipe: Recipe, videos: VideoList, model: TimeSformer, accelerator: Accelerator) -> dict[str, Any]:
    """Name, as an error says it -> a plain value; all must be the same for a run to go on.

    The head does not count: a new one is random, and who creates the model again need not have set torch's seed.

    Args:
        model: with the weights from which the run starts. Of several processes the first one's count.
    """
    from accelerate.utils import broadcast_object_list

    fixed = {f"recipe.{name}": value for name, value in recipe.to_dict().items() if name not in MAY_CHANGE}
    number, classes = counted(len(videos.samples), "videos"), counted(len(videos.classes), videos.things)
    data = f"{videos.name} {videos.split}, fold {videos.fold}, {number} in {classes}"
    data += f", window {videos.window}" if videos.window is not None else ""
    weights = broadcast_object_list([weights_digest(model, head=False) if accelerator.is_main_process else ""])[0]
    return {
        **fixed,
        "data": data,
        "names and targets of the videos (digest)": _targets_digest(videos),
        "model": model.model_args,
        "weights to start from (digest, without the head)": weights,
    }


def _targets_digest(videos: VideoList) -> str:
    """Of the list, which may lie in another folder by now."""
    digest = hashlib.blake2b(repr((videos.task, videos.classes)).encode(), digest_size=16)
    for sample in videos.samples:
        name = os.path.basename(masked(sample.path))  # an address is signed anew from time to time
        digest.update(repr((name, *sample[1:])).encode())
    return digest.hexdigest()
