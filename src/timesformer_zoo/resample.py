"""Fitting embeddings to another grid: two-dimensional for space, one-dimensional for time.

Legend: D width, T frames, h w patch rows and columns, N = h·w.
"""

import torch
import torch.nn.functional as F
from timm.layers import resample_abs_pos_embed

__all__ = ["resample_pos_embed", "resample_time_embed"]


def resample_pos_embed(pos_embed: torch.Tensor, old: tuple[int, int], new: tuple[int, int]) -> torch.Tensor:
    """Resample position embeddings to another patch grid, bicubic; the class token's entry stays as it is.

    Args:
        pos_embed: (1, 1 + h·w, D), the class token's entry first.
        old: (h, w) it was made for.
        new: (h, w) wanted. The same size gives the same tensor back.

    Returns:
        (1, 1 + new_h·new_w, D).
    """
    if old == new:
        return pos_embed
    resampled: torch.Tensor = resample_abs_pos_embed(pos_embed, list(new), list(old), num_prefix_tokens=1)
    return resampled


def resample_time_embed(time_embed: torch.Tensor, frames: int, mode: str = "linear") -> torch.Tensor:
    """Resample time embeddings to another number of frames.

    Args:
        time_embed: (1, T, D).
        frames: frames wanted. The same number gives the same tensor back.
        mode: "linear", or "nearest" as the authors' loader does.

    Returns:
        (1, frames, D).
    """
    if time_embed.shape[1] == frames:
        return time_embed
    align = False if mode == "linear" else None
    x = F.interpolate(time_embed.float().transpose(1, 2), size=frames, mode=mode, align_corners=align)
    return x.transpose(1, 2).to(time_embed.dtype)
