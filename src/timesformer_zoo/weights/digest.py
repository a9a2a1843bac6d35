"""What tells a model from another one: digests of its weights, and the arguments that its features depend on."""

from __future__ import annotations

import hashlib
from typing import Any

import torch

from timesformer_zoo.model.timesformer import TimeSformer

__all__ = ["feature_args", "weights_digest"]

_OF_THE_HEAD_OR_TRAINING = ("num_classes", "drop_rate", "drop_path_rate", "attn_drop_rate", "proj_drop_rate", "clip")


def weights_digest(model: TimeSformer, head: bool = True) -> str:
    """Of the names and values of all weights, or of all but the head's; 32 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=16)
    for name, value in model.state_dict().items():
        if head or not name.startswith("head."):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def feature_args(model: TimeSformer) -> dict[str, Any]:
    """The model's arguments, but for those of the head and of training, and how clips are taken."""
    return {name: value for name, value in model.model_args.items() if name not in _OF_THE_HEAD_OR_TRAINING}
