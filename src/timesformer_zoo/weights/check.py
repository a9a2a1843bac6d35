"""Whether a model can take weights. All is looked at before anything is loaded, so that no model is half loaded."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from timesformer_zoo.errors import CheckpointError
from timesformer_zoo.weights.formats import some_keys

__all__ = ["misfits", "refuse_not_finite", "refuse_other_kinds", "shape_of"]


def shape_of(value: Any) -> tuple[int, ...] | str:
    """A tensor's shape; of anything else, what it is."""
    return tuple(value.shape) if torch.is_tensor(value) else type(value).__name__


def misfits(weights: Mapping[str, Any], own: Mapping[str, Any], strict: bool = True) -> list[str]:
    """What torch would say of weights under a model's names, a sentence a fault; empty if they can be loaded.

    Args:
        weights: native names.
        own: the model's state dict.
        strict: missing and unexpected keys are faults, too.
    """
    missing = [key for key in own if key not in weights]
    unexpected = [key for key in weights if key not in own]
    faults = []
    if strict and missing:
        faults.append(f"Missing key(s) in state_dict: {some_keys(missing)}")
    if strict and unexpected:
        faults.append(f"Unexpected key(s) in state_dict: {some_keys(unexpected)}")
    other = [
        f"{key}: got {shape_of(value)}, expected {shape_of(own[key])}"
        for key, value in weights.items()
        if torch.is_tensor(own.get(key)) and shape_of(value) != shape_of(own[key])
    ]
    if other:
        faults.append(f"size mismatch for {some_keys(other)}")
    return faults


def refuse_other_kinds(weights: Mapping[str, torch.Tensor], on_meta: bool = False) -> None:
    """Refuse tensors that are not dense, of floating point, and with elements.

    torch would take some of them in silence (integers), and stop half-way at others (sparse and quantised ones).

    Args:
        weights: any names.
        on_meta: tensors without data are meant.

    Raises:
        CheckpointError: naming the keys and what they hold.
    """
    kinds = {key: _other_kind(value) for key, value in weights.items() if not (on_meta and value.is_meta)}
    if found := [f"{key} ({kind})" for key, kind in kinds.items() if kind]:
        raise CheckpointError(f"expected dense weights of floating point, with data; got {some_keys(found)}")


def _other_kind(value: torch.Tensor) -> str:
    if value.is_quantized:
        return "quantised"
    if not value.dtype.is_floating_point:
        return str(value.dtype)
    if value.layout is not torch.strided:
        return str(value.layout)
    if value.is_meta:
        return "on the meta device, without data"
    return "" if value.numel() else f"no elements: {tuple(value.shape)}"


def refuse_not_finite(weights: Iterable[tuple[str, torch.Tensor]]) -> None:
    """Refuse weights that are not numbers, or infinite: a training run that diverged, or a damaged file.

    Args:
        weights: names and tensors, taken one by one.

    Raises:
        CheckpointError: naming the keys.
    """
    if found := [key for key, value in weights if not _finite(value)]:
        raise CheckpointError(
            f"{len(found)} weights hold NaN or infinity: {some_keys(found)}. Take the weights from before training "
            "diverged, or get the file again"
        )


def _finite(value: torch.Tensor) -> bool:
    if value.is_meta or type(value) not in (torch.Tensor, torch.nn.Parameter):
        return True  # no data here: meta, fake, or spread over processes
    # One reduction: torch.isfinite takes thirty times as long, and is asked only where the sum overflows.
    total = value.detach().sum(dtype=torch.float32 if value.dtype.itemsize < 4 else value.dtype)
    return math.isfinite(total) or bool(value.to(total.dtype).isfinite().all())
