"""A model among several processes: prepared by accelerate as the run was launched, and its whole weights got back."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import get_model_state_dict
from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy
from torch.distributed.tensor import DTensor

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["prepare", "weights_of", "whole_weights"]


def prepare(accelerator: Accelerator, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, Any]:
    """The model and the optimizer for as many processes as there are, all of which start from the first one's weights.

    Raises:
        ValueError: the run was launched in a way that accelerate does not follow, or FSDP's first version is asked for.
    """
    from accelerate.utils import broadcast

    world = int(os.environ.get("WORLD_SIZE", 1))
    if world > 1 and accelerator.num_processes == 1:
        raise ValueError(
            f"This is one of {world} processes, but accelerate found no GPU and would run each alone: to train on "
            "CPUs, set ACCELERATE_USE_CPU=true."
        )
    plugin = accelerator.state.fsdp_plugin if str(accelerator.distributed_type) == "DistributedType.FSDP" else None
    if plugin is None and os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true":
        raise ValueError(f"FSDP was asked for, but accelerate has none on {accelerator.device.type}: leave it out.")
    if plugin is not None:
        if plugin.fsdp_version != 2:
            raise ValueError(f"FSDP of version {plugin.fsdp_version}, expected 2: launch with --fsdp_version 2.")
        if plugin.auto_wrap_policy is None:  # all in one: each process would hold the whole model during a step
            plugin.auto_wrap_policy = transformer_auto_wrap_policy  # of the model's `_no_split_modules`
        # That is for weights which the first process alone has; and accelerate 1.15 fails where a model has parameters
        # of its own, such as a class token.
        plugin.cpu_ram_efficient_loading = False
        for parameter in model.parameters():
            parameter.data = broadcast(parameter.data.to(accelerator.device))
    prepared: tuple[nn.Module, Any] = accelerator.prepare(model, optimizer)
    return prepared


def weights_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """Name -> this process's part of a weight, the model's own memory; names are those of the model as it was given.

    Asking frees what FSDP gathered for the last evaluation: to be asked anew before each use.
    """
    return cast(dict[str, torch.Tensor], get_model_state_dict(model))


def whole_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """Name -> whole tensor on the CPU, in every process; called by all."""
    weights = weights_of(model)
    return {name: (w.full_tensor() if isinstance(w, DTensor) else w).detach().cpu() for name, w in weights.items()}
