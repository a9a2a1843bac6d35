"""What training scripts wrap a state dict in, taken off."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from timesformer_zoo.errors import CheckpointError
from timesformer_zoo.weights.formats import find_format, some_keys
from timesformer_zoo.weights.state import Weights

__all__ = ["unwrap"]

# Averaged weights first, as timm does. Endo-FM's fine-tuned files have the encoder beside a `state_dict` of the head
# alone. Of a teacher and its student, SVT's own evaluation takes the teacher.
_WRAPPERS = ("state_dict_ema", "model_ema", "ema_state_dict", "ema", "backbone_state_dict", "model_state",
             "model_state_dict", "state_dict", "model", "module", "teacher", "student")  # fmt: skip
_PREFIXES = ("module.", "_orig_mod.")  # DistributedDataParallel and the like; torch.compile
# Beside the weights: a counter of torch.optim.swa_utils.AveragedModel; names that paddle.save adds.
_NO_WEIGHTS = ("n_averaged", "StructuredToParameterName@@")


def unwrap(content: Any) -> Weights:
    """A file's content down to its state dict, whatever the training script wrapped it in.

    Takes off, in any nesting, dict entries (`model`, `state_dict`, `model_state`, EMA variants, which come first
    as in timm) and key prefixes (`module.`, `_orig_mod.`, and a `model.` that does not belong to the format).

    Returns:
        The state dict; its `left_out` names other weights that the file has ("student"), and what is no weight.

    Raises:
        CheckpointError: what is inside is not a dict of tensors.
    """
    left_out = [*getattr(content, "left_out", ())]
    while isinstance(content, Mapping):
        inner = [name for name in _WRAPPERS if isinstance(content.get(name), Mapping)]
        if not inner:
            break
        left_out += inner[1:]
        content = content[inner[0]]
    state_dict = {}
    if isinstance(content, Mapping):
        left_out += [key for key in _NO_WEIGHTS if key in content]
        state_dict = {str(key): value for key, value in content.items() if key not in _NO_WEIGHTS}
    if not state_dict:
        found = "an empty dict" if isinstance(content, Mapping) else type(content).__name__
        raise CheckpointError(f"expected a dict of tensors, possibly wrapped in one of {_WRAPPERS}; got {found}")
    others = [f"{key} ({type(value).__name__})" for key, value in state_dict.items() if not torch.is_tensor(value)]
    if others:
        raise CheckpointError(f"a state dict has tensors only; got also {some_keys(others)}")
    while any(stripped := [prefix for prefix in _PREFIXES if all(key.startswith(prefix) for key in state_dict)]):
        state_dict = {key.removeprefix(stripped[0]): value for key, value in state_dict.items()}
    if all(key.startswith("model.") for key in state_dict) and find_format(state_dict) is None:
        return unwrap(Weights({key.removeprefix("model."): value for key, value in state_dict.items()}, left_out))
    return Weights(state_dict, left_out)
