"""Weights of another size than a model's: other pixels, patches, channels or frames.

Legend: T frames, h w patch rows and columns, N = h·w, D width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from timm.layers import resample_patch_embed, to_2tuple
from timm.models import adapt_input_conv

from timesformer_zoo.errors import CheckpointError
from timesformer_zoo.model.embedding import resample_pos_embed, resample_time_embed

if TYPE_CHECKING:
    from timesformer_zoo.model.timesformer import TimeSformer

__all__ = ["PATCHES", "fit_sizes"]

PATCHES = "patch_embed.proj.weight"


def fit_sizes(
    weights: Mapping[str, torch.Tensor], model: TimeSformer, source_grid: tuple[int, int] | None, *, native: bool
) -> dict[str, torch.Tensor]:
    """The embeddings, resampled to the model's size; at the weights' own size nothing changes.

    Tensors of another rank or width are left out, for others to report.

    Args:
        weights: native names.
        model: read, never changed.
        source_grid: (h, w) of the weights' patches, where it is known.
        native: the weights are of this package, and may be rectangular.

    Raises:
        CheckpointError: the grid can't be told, or is not that of the weights.
    """
    fitted = {}
    kernel = weights.get(PATCHES)
    if kernel is not None and kernel.ndim == 4:
        adapted = adapt_input_conv(model.in_chans, kernel, base_chans=kernel.shape[1])
        fitted[PATCHES] = resample_patch_embed(adapted, list(model.patch_size))
    pos_embed = weights.get("pos_embed")
    if pos_embed is not None and pos_embed.ndim == 3 and pos_embed.shape[1] > 1:
        grid = source_grid or _source_grid(pos_embed.shape[1] - 1, kernel, model, native)
        if math.prod(grid) != pos_embed.shape[1] - 1:
            raise CheckpointError(
                f"source_grid={grid} has {math.prod(grid)} patches, pos_embed {pos_embed.shape[1] - 1}"
            )
        fitted["pos_embed"] = resample_pos_embed(pos_embed, grid, model.grid_size[1:])
    time_embed = weights.get("time_embed")
    if time_embed is not None and time_embed.ndim == 3 and model.time_embed is not None:
        fitted["time_embed"] = resample_time_embed(time_embed, model.num_frames, model.time_interpolation)
    return fitted


def _source_grid(patches: int, kernel: torch.Tensor | None, model: TimeSformer, native: bool) -> tuple[int, int]:
    """(h, w) of the weights' patches: as their own saved arguments say, or a square, or the model's.

    Published models are square. A native one may well be rectangular, and a bare file of one does not say: if it
    has as many patches as the model it is taken for the model's own.
    """
    rows, columns = model.grid_size[1:]
    side = math.isqrt(patches)
    candidates = [(side, side), (rows, columns)]
    if native:
        candidates.reverse()
    saved = getattr(model, "pretrained_model_args", {})  # what timm read in the config beside the weights
    if "img_size" in saved and kernel is not None and kernel.ndim == 4:
        extra = (kernel.shape[2] - 1, kernel.shape[3] - 1) if saved.get("dynamic_img_pad") else (0, 0)
        height, width = to_2tuple(saved["img_size"])
        candidates.insert(0, ((height + extra[0]) // kernel.shape[2], (width + extra[1]) // kernel.shape[3]))
    for grid in candidates:
        if math.prod(grid) == patches:
            return grid
    raise CheckpointError(
        f"the weights' pos_embed has {patches} patches, neither a square nor the model's {rows}x{columns} of them: "
        "give checkpoint_filter_fn source_grid=(rows, columns)"
    )
