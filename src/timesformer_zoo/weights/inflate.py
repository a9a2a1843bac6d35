"""An image ViT's weights as the start of a video model: every attention step gets the ViT's own attention.

Legend: T frames, D width, N patches.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from timesformer_zoo.errors import CheckpointError
from timesformer_zoo.weights.formats import some_keys

if TYPE_CHECKING:
    from timesformer_zoo.model.timesformer import TimeSformer

__all__ = ["inflate", "refuse_inexpressible"]

# Parts of timm's ViTs that TimeSformer has no place for: a piece of the key, and what it is.
_INEXPRESSIBLE = {
    "dist_token": "a distillation token",
    "reg_token": "register tokens",
    "register_tokens": "register tokens",
    "fc_norm.": "a norm after pooling in place of the final norm",
    "attn_pool.": "attention pooling",
    ".q_norm.": "normalised queries and keys",
    ".attn.norm.": "a norm inside the attention",
    ".mlp.norm.": "a norm inside the MLP",
    ".attn.q_bias": "BEiT's attention",
    ".attn.q_proj.": "EVA's attention",
    "fc1_g.": "a gated MLP",
    "w12.": "a gated MLP",
}
# Parts of an image model that a video model does not need: heads of older training runs, a mask for pretraining.
_UNNEEDED = ("pre_logits.", "mask_token")


def refuse_inexpressible(vit: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The ViT's state dict without what a video model does not need.

    Raises:
        CheckpointError: it has a part that TimeSformer cannot express, or no class token.
    """
    for piece, what in _INEXPRESSIBLE.items():
        if found := [key for key in vit if piece in key]:
            raise CheckpointError(
                f"this image ViT has {what} ({some_keys(found, 2)}), which TimeSformer cannot express; "
                "choose a plain ViT with a class token, such as vit_base_patch16_224"
            )
    if "cls_token" not in vit:
        raise CheckpointError("this image ViT has no class token (cls_token); choose one that pools by a class token")
    return {key: value for key, value in vit.items() if not key.startswith(_UNNEEDED)}


def inflate(
    weights: Mapping[str, torch.Tensor], model: TimeSformer, source_grid: tuple[int, int] | None = None
) -> dict[str, torch.Tensor]:
    """Turn an image ViT's weights into those of a video model (section 4.1 of the paper).

    Every attention step of a block starts as a copy of the ViT's attention and its norm; the `fc` after each step
    but the last, and the time embedding, start at zero: so the model starts as the ViT does with its last step alone.
    Where a mode has no such layer, the step's projection starts at zero.
    Layer scale is folded into the projection before it, which changes nothing in the result.

    Args:
        weights: native names of a space-only model (see `formats.FORMATS`).
        model: gives the attention steps and T.
        source_grid: (h, w) of the ViT's patches, where it is known.

    Raises:
        CheckpointError: the ViT has a norm before its blocks (CLIP) and the model has none.
    """
    expected = model.state_dict()
    weights = _class_entry(_fold_layer_scale(weights), model, source_grid)
    if "norm_pre.weight" in weights:
        if "norm_pre.weight" not in expected:
            raise CheckpointError(
                "this image ViT normalises its embeddings before the first block (norm_pre, as CLIP does) and this "
                "model does not; choose a ViT without norm_pre, or a model built with it"
            )
        # timm leaves the patch embedding's bias out of such ViTs; no bias is a bias of zero.
        weights.setdefault("patch_embed.proj.bias", torch.zeros_like(weights["norm_pre.bias"]))
    inflated = {key: value for key, value in weights.items() if ".steps.space." not in key}
    for key in weights.keys() - inflated.keys():
        for step in model.attention.steps:
            # Copies, so that no two parameters share memory when a state dict is assigned and not copied.
            inflated[key.replace(".steps.space.", f".steps.{step.name}.")] = weights[key].clone()
    zero = [step.starts_at_zero() for step in model.attention_steps()]
    names = {name for name, module in model.named_modules() if any(module is layer for layer in zero)}
    for key, parameter in expected.items():
        if key == "time_embed" or key.rpartition(".")[0] in names:
            inflated[key] = torch.zeros_like(parameter, device="cpu")
    return inflated


def _fold_layer_scale(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    # gamma · (W x + b) = (gamma W) x + gamma b
    folded = {key: value for key, value in weights.items() if not key.endswith(".gamma")}
    for key, gamma in weights.items():
        if not key.endswith(".gamma"):
            continue
        block, scale, _ = key.rsplit(".", 2)
        layer = {"ls1": f"{block}.steps.space.proj", "ls2": f"{block}.mlp.fc2"}[scale]
        for name in (f"{layer}.weight", f"{layer}.bias"):
            if name in folded:
                parameter = folded[name].float()
                folded[name] = parameter * gamma.float().view(-1, *[1] * (parameter.ndim - 1))
    return folded


def _class_entry(
    weights: dict[str, torch.Tensor], model: TimeSformer, source_grid: tuple[int, int] | None
) -> dict[str, torch.Tensor]:
    # DeiT III adds no position to its class token (timm: no_embed_class): the missing first entry is zero. The count
    # tells: N and N + 1 are never both squares. But a rectangle's N + 1 can be: hence the grid, or else the model's.
    pos_embed = weights.get("pos_embed")
    if pos_embed is None or pos_embed.ndim != 3:
        return weights
    entries = pos_embed.shape[1]
    rows, columns = source_grid or model.grid_size[1:]
    if entries == 1 + rows * columns:
        return weights
    if math.isqrt(entries) ** 2 == entries or (source_grid and entries == rows * columns):
        return weights | {"pos_embed": torch.cat([torch.zeros_like(pos_embed[:, :1]), pos_embed], dim=1)}
    return weights
