"""Making a checkpoint fit a model: any known format and size in, the model's own keys and shapes out, or an error.

Legend: T frames, h w patch rows and columns, N = h·w, D width.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import timm
import torch
from timm.layers import resample_patch_embed, to_2tuple
from timm.models import adapt_input_conv
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from timesformer_zoo.errors import CheckpointError
from timesformer_zoo.model.embedding import resample_pos_embed, resample_time_embed
from timesformer_zoo.weights.formats import Format, detect, peel, some_keys
from timesformer_zoo.weights.inflate import inflate, refuse_inexpressible

if TYPE_CHECKING:
    from timesformer_zoo.model.timesformer import TimeSformer

__all__ = ["checkpoint_filter_fn", "convert_on_load", "flip_input_channels", "init_from_vit"]

_logger = logging.getLogger(__name__)

_HEAD = ("head.weight", "head.bias")
_PATCHES = "patch_embed.proj.weight"


def checkpoint_filter_fn(
    state_dict: Mapping[str, Any],
    model: TimeSformer,
    *,
    bgr: bool = False,
    source_grid: tuple[int, int] | None = None,
) -> dict[str, torch.Tensor]:
    """A checkpoint of any known format as a complete state dict for this model.

    Formats: native, transformers, mmaction2, the authors', and timm's image ViTs, which are inflated. Wrappers
    (`model_state`, `module.`, EMA …) come off. Embeddings are resampled to the model's img_size, num_frames (by its
    time_interpolation) and patch_size, the patch embedding is adapted to in_chans as timm does it; at the checkpoint's
    own size nothing changes. The head is taken where its shape is the model's; else the model's own stays as it is.

    Args:
        state_dict: what the file holds.
        model: the model it is for; read, never changed.
        bgr: the checkpoint was trained on BGR frames (the authors' SSv2 models were): reverse the patch embedding's
            channels, so that the model takes RGB. Native checkpoints and image ViTs always take RGB; for these it
            changes nothing.
        source_grid: (h, w) of the checkpoint's patches. Needed only where it can't be told: by default it is the
            grid of the img_size saved beside the weights, or a square, or the model's own.

    Raises:
        CheckpointError: the format is unknown, or holds another attention mode, or, the head apart, a key is unknown,
            missing, or of another shape.
    """
    state_dict = peel(state_dict)
    form = detect(state_dict)
    weights = form.to_native(refuse_inexpressible(state_dict) if form.inflates else state_dict)
    if form.inflates:
        weights = inflate(weights, model, source_grid)
    elif form.mode is not model.attention:
        raise CheckpointError(
            f"the checkpoint ({form.name} format) holds {form.mode.value} attention, the model has "
            f"{model.attention.value}: build the model with attention={form.mode.value!r}"
        )
    if bgr and not form.inflates and form.name != "native":
        weights = flip_input_channels(weights)
    expected = model.state_dict()
    weights |= _fit_embeddings(weights, expected, model, form, source_grid)
    weights = _fit_head(weights, expected, form)
    _check(weights, expected, model, form)
    return weights


def flip_input_channels(state_dict: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Reverse the order of the patch embedding's input channels: a model of BGR frames then takes RGB, or back.

    Args:
        state_dict: native keys.

    Raises:
        CheckpointError: the patch embedding is missing or has not three input channels.
    """
    weight = state_dict.get(_PATCHES)
    if weight is None or weight.ndim != 4 or weight.shape[1] != 3:
        found = "none" if weight is None else tuple(weight.shape)
        raise CheckpointError(f"channels can be flipped in a {_PATCHES} of shape (D, 3, h, w); got {found}")
    return dict(state_dict) | {_PATCHES: weight.flip(1)}


def init_from_vit(model: TimeSformer, vit: str | nn.Module | Mapping[str, Any]) -> TimeSformer:
    """Start a model of any attention mode from one of timm's plain image ViTs with a class token.

    Time and space attention are both copied from the ViT's, the projections between steps and the time embedding
    are zero, embeddings are resampled to the model's size. Width, depth and number of heads must be the model's.

        model = timm.create_model("timesformer_tiny_divided", embed_dim=192, depth=12, num_heads=3)
        init_from_vit(model, "vit_tiny_patch16_224.augreg_in21k")

    Args:
        model: changed in place.
        vit: a timm name, whose weights timm downloads; a timm `VisionTransformer`; or the state dict of one. Only
            the module shows its number of heads and its activation: a bare state dict is taken at its word.

    Returns:
        The same model.

    Raises:
        CheckpointError: the ViT does not fit the model, or has parts TimeSformer cannot express.
    """
    network = timm.create_model(vit, pretrained=True) if isinstance(vit, str) else vit
    grid = _check_vit(network, model) if isinstance(network, nn.Module) else None
    weights = peel(network.state_dict() if isinstance(network, nn.Module) else network)
    if not detect(weights).inflates:
        raise CheckpointError(
            "init_from_vit takes an image ViT's weights; these are a video model's: load them by checkpoint_filter_fn"
        )
    model.load_state_dict(checkpoint_filter_fn(weights, model, source_grid=grid))
    return model


def _check_vit(vit: nn.Module, model: TimeSformer) -> tuple[int, int]:
    """Check what a state dict does not show; return (h, w) of the ViT's patches."""
    if not isinstance(vit, VisionTransformer):
        raise CheckpointError(
            f"got a {type(vit).__name__}; expected a timm VisionTransformer, plain and with a class token"
        )
    block: Any = vit.blocks[0]
    if block.attn.num_heads != model.num_heads:
        raise CheckpointError(f"the image ViT has {block.attn.num_heads} attention heads, the model {model.num_heads}")
    activation = type(block.mlp.act).__name__
    if activation != "GELU":
        raise CheckpointError(f"the image ViT's activation is {activation}; TimeSformer's is GELU")
    rows, columns = vit.patch_embed.grid_size
    return rows, columns


def convert_on_load(model: TimeSformer, state_dict: dict[str, Any], prefix: str, *_: Any, bgr: bool = False) -> None:
    """A hook for `register_load_state_dict_pre_hook`: lets `load_state_dict` take foreign formats and other sizes.

    timm's `checkpoint_path=` and `load_checkpoint` call `load_state_dict` with the file's own keys. A state dict whose
    keys are all the model's with the model's shapes is left alone, be it complete or not, and so is one of which no
    format is known, for torch to report.
    """
    expected = model.state_dict()
    if prefix or all(key in expected and _shape(value) == _shape(expected[key]) for key, value in state_dict.items()):
        return
    try:
        weights = peel(state_dict)
        form = detect(weights)
    except CheckpointError:
        return
    _logger.info("Converting a state dict from %s format", form.name)
    converted = checkpoint_filter_fn(weights, model, bgr=bgr)
    state_dict.clear()
    state_dict.update(converted)


def _fit_embeddings(
    weights: Mapping[str, torch.Tensor],
    expected: Mapping[str, torch.Tensor],
    model: TimeSformer,
    form: Format,
    source_grid: tuple[int, int] | None,
) -> dict[str, torch.Tensor]:
    # Only tensors of the right rank are fitted; others, and other widths, are left for `_check` to report.
    fitted = {}
    kernel = weights.get(_PATCHES)
    if kernel is not None and kernel.ndim == 4:
        adapted = adapt_input_conv(model.in_chans, kernel, base_chans=kernel.shape[1])
        fitted[_PATCHES] = resample_patch_embed(adapted, list(model.patch_size))
    pos_embed = weights.get("pos_embed")
    if pos_embed is not None and pos_embed.ndim == 3 and pos_embed.shape[1] > 1:
        grid = source_grid or _source_grid(pos_embed.shape[1] - 1, kernel, model, form)
        if math.prod(grid) != pos_embed.shape[1] - 1:
            raise CheckpointError(
                f"source_grid={grid} has {math.prod(grid)} patches, pos_embed {pos_embed.shape[1] - 1}"
            )
        fitted["pos_embed"] = resample_pos_embed(pos_embed, grid, model.grid_size[1:])
    time_embed = weights.get("time_embed")
    if time_embed is not None and time_embed.ndim == 3 and "time_embed" in expected:
        fitted["time_embed"] = resample_time_embed(time_embed, model.num_frames, model.time_interpolation)
    return fitted


def _source_grid(patches: int, kernel: torch.Tensor | None, model: TimeSformer, form: Format) -> tuple[int, int]:
    """(h, w) of a checkpoint's patches: as its own saved arguments say, or a square, or the model's.

    Published models are square. A native checkpoint may well be rectangular, and a bare file of one does not say: if it
    has as many patches as the model it is taken for the model's own.
    """
    rows, columns = model.grid_size[1:]
    side = math.isqrt(patches)
    candidates = [(side, side), (rows, columns)]
    if form.name == "native":
        candidates.reverse()
    saved = getattr(model, "pretrained_model_args", {})  # what timm read in the config beside the weights
    if "img_size" in saved and kernel is not None:
        extra = (kernel.shape[2] - 1, kernel.shape[3] - 1) if saved.get("dynamic_img_pad") else (0, 0)
        height, width = to_2tuple(saved["img_size"])
        candidates.insert(0, ((height + extra[0]) // kernel.shape[2], (width + extra[1]) // kernel.shape[3]))
    for grid in candidates:
        if math.prod(grid) == patches:
            return grid
    raise CheckpointError(
        f"the checkpoint's pos_embed has {patches} patches, neither a square nor the model's {rows}x{columns} of them: "
        "give checkpoint_filter_fn source_grid=(rows, columns)"
    )


def _fit_head(
    weights: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor], form: Format
) -> dict[str, torch.Tensor]:
    if all(_shape(weights.get(key)) == _shape(expected.get(key)) for key in _HEAD):
        return dict(weights)
    body = {key: value for key, value in weights.items() if key not in _HEAD}
    own = {key: expected[key] for key in _HEAD if key in expected}
    if own:
        found = tuple(weights["head.weight"].shape) if "head.weight" in weights else "none"
        level = logging.INFO if form.inflates else logging.WARNING
        _logger.log(
            level,
            "The checkpoint's head (%s) is not the model's %s: the model's stays as it is, to be trained",
            found,
            tuple(own["head.weight"].shape),
        )
    return body | own


def _shape(value: Any) -> tuple[int, ...] | None:
    return tuple(value.shape) if torch.is_tensor(value) else None


def _check(
    weights: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor], model: TimeSformer, form: Format
) -> None:
    misshapen = [
        f"{key}: got {tuple(weights[key].shape)}, expected {tuple(expected[key].shape)}"
        for key in weights
        if key in expected and weights[key].shape != expected[key].shape
    ]
    faults = {
        "missing": [key for key in expected if key not in weights],
        "unexpected": [key for key in weights if key not in expected],
        "of another shape": misshapen,
    }
    problems = [f"{len(keys)} {fault} ({some_keys(keys)})" for fault, keys in faults.items() if keys]
    if problems:
        raise CheckpointError(
            f"the checkpoint, taken for {form.name} format, does not fit the model ({model.attention.value} attention, "
            f"width {model.embed_dim}, depth {model.depth}), in native names: {'; '.join(problems)}. "
            "Build the model with the checkpoint's sizes, or check that the file is complete"
        )
