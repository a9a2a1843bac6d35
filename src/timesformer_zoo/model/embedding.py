"""A clip becomes tokens: its patches and a class token, with embeddings of where and when they are.

Legend: B batch, C channels, T frames, H W pixels, h w patch rows and columns, L = 1 + T·h·w tokens, D width.

Paper: Bertasius, Wang, Torresani, "Is Space-Time Attention All You Need for Video Understanding?", ICML 2021,
arXiv 2102.05095, section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from timm.layers import PatchEmbed, resample_abs_pos_embed
from torch import nn

from timesformer_zoo.model.attention import Grid

__all__ = ["ClipEmbedding", "Size", "TimeInterpolation", "resample_pos_embed", "resample_time_embed", "to_pair"]

Size = int | tuple[int, int]

TimeInterpolation = Literal["linear", "nearest", "first", "first_aligned"]
"""How time embeddings are resampled: linearly; "nearest", as the authors' loader does; or, as in models of Frozen in
Time's kind, the "first" of them for fewer frames, for more linearly, "first_aligned" with the ends kept in place."""


def to_pair(size: Size | Sequence[int]) -> tuple[int, int]:
    """An int or a pair as (height, width)."""
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


class ClipEmbedding(nn.Module):
    """The part of a TimeSformer before its blocks, and all that depends on the size of a clip.

    Embeddings are made for one size, and resampled for a clip of another.

    Args:
        img_size, patch_size: pixels, (height, width) or one int for both.
        num_frames: frames that the time embeddings are made for.
        in_chans: channels of a frame.
        embed_dim: D.
        per_frame: every frame has a class token of its own, and there is no time embedding.
        pre_norm: makes a norm of a width, after the embeddings; None: there is none.
        patch_bias: whether the patch embedding has a bias.
        pos_drop_rate: dropout after the embeddings.
        dynamic_img_pad: pad frames on the right and bottom to a multiple of the patch size instead of refusing them.
        time_interpolation: how time embeddings are resampled.

    Raises:
        ValueError: the patch size does not divide the frame, or `time_interpolation` is unknown.
    """

    def __init__(
        self,
        img_size: Size,
        patch_size: Size,
        num_frames: int,
        in_chans: int,
        embed_dim: int,
        per_frame: bool,
        pre_norm: Callable[[int], nn.Module] | None,
        patch_bias: bool,
        pos_drop_rate: float,
        dynamic_img_pad: bool,
        time_interpolation: TimeInterpolation,
    ) -> None:
        super().__init__()
        if time_interpolation not in (known := get_args(TimeInterpolation)):
            raise ValueError(f"Unknown time_interpolation {time_interpolation!r}. Choose one of {', '.join(known)}.")
        check_sizes(num_frames, to_pair(img_size), None if dynamic_img_pad else patch_size)
        self.num_frames = num_frames
        self.in_chans = in_chans
        self.per_frame = per_frame
        self.dynamic_img_pad = dynamic_img_pad
        self.time_interpolation = time_interpolation
        sizes = (to_pair(img_size), to_pair(patch_size), in_chans, embed_dim)
        options = dict(strict_img_size=False, dynamic_img_pad=dynamic_img_pad)
        self.patch_embed = PatchEmbed(*sizes, bias=patch_bias, **options)
        h, w = self.patch_grid(*to_pair(img_size))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + h * w, embed_dim))
        self.time_embed = None if per_frame else nn.Parameter(torch.zeros(1, num_frames, embed_dim))
        self.pos_drop = nn.Dropout(pos_drop_rate)
        self.norm_pre = nn.Identity() if pre_norm is None else pre_norm(embed_dim)

    @property
    def img_size(self) -> tuple[int, int]:
        """(H, W) in pixels that the position embeddings are made for."""
        return to_pair(self.patch_embed.img_size)

    @property
    def patch_size(self) -> tuple[int, int]:
        """(height, width) of a patch in pixels."""
        return to_pair(self.patch_embed.patch_size)

    @property
    def grid_size(self) -> Grid:
        """(T, h, w) that the embeddings are made for."""
        return (self.num_frames, *self.patch_grid(*self.img_size))

    def patch_grid(self, height: int, width: int) -> tuple[int, int]:
        """Patch rows and columns of a frame; a frame that is padded has one more where the patch does not fit."""
        return self.patch_embed.dynamic_feat_size((height, width))

    @torch.no_grad()
    def set_input_size(
        self, img_size: Size | None = None, num_frames: int | None = None, patch_size: Size | None = None
    ) -> None:
        """Resample the embeddings, and the patch embedding, once and for all to another size.

        Args:
            img_size: pixels; None keeps it.
            num_frames: frames; None keeps it.
            patch_size: pixels of a patch; None keeps it.

        Raises:
            ValueError: if the patch size does not divide the size and `dynamic_img_pad` is off.
        """
        size = self.img_size if img_size is None else to_pair(img_size)
        frames = self.num_frames if num_frames is None else num_frames
        patch = self.patch_size if patch_size is None else to_pair(patch_size)
        check_sizes(frames, size, None if self.dynamic_img_pad else patch)
        old = self.grid_size[1:]
        self.patch_embed.set_input_size(size, patch)
        pos = resample_pos_embed(self.pos_embed, old, self.patch_grid(*size))
        self.pos_embed = nn.Parameter(pos.clone(), requires_grad=self.pos_embed.requires_grad)
        if self.time_embed is not None:
            time = resample_time_embed(self.time_embed, frames, self.time_interpolation)
            self.time_embed = nn.Parameter(time.clone(), requires_grad=self.time_embed.requires_grad)
        self.num_frames = frames

    def check_input(self, x: torch.Tensor) -> None:
        """Raise for what is no clip batch (B, C, T, H, W) for this model, or for an export that lies.

        Raises:
            TypeError: it is no tensor.
            ValueError: its layout, shape, number format or device does not fit; the message says what does.
        """
        if torch.jit.is_tracing() and torch.onnx.is_in_onnx_export():  # type: ignore[attr-defined, no-untyped-call]
            raise ValueError(
                "torch.onnx.export(dynamo=False) would make the example's batch size a constant, also where "
                "dynamic_axes says otherwise. Use dynamo=True, with dynamic_shapes for a batch of any size."
            )
        want = f"Expected a clip batch (B, C, T, H, W) with C = {self.in_chans}"
        if not isinstance(x, torch.Tensor):
            raise TypeError(f"{want}, got {type(x).__name__}. clip_transform(model) makes a clip, torch.stack a batch.")
        if x.layout is not torch.strided or x.is_nested:
            hint = "Stack clips of one size" if x.is_nested else "Use x.to_dense()"
            raise ValueError(f"{want} as a dense tensor, got a {'nested one' if x.is_nested else x.layout}. {hint}.")
        if x.ndim != 5:
            hint = " It looks like one clip: use x.unsqueeze(0)." if x.shape[:1] == (self.in_chans,) else ""
            raise ValueError(f"{want}, got {x.ndim} dimensions: {tuple(x.shape)}.{hint}")
        if x.shape[1] != self.in_chans:
            hint = ""
            if x.shape[2] == self.in_chans:
                hint = " It looks like (B, T, C, H, W): use x.transpose(1, 2)."
            elif x.shape[4] == self.in_chans:
                hint = " It looks like (B, T, H, W, C): use x.permute(0, 4, 1, 2, 3)."
            raise ValueError(f"{want}, got C = {x.shape[1]} in {tuple(x.shape)}.{hint}")
        weight = self.pos_embed
        if not x.is_floating_point():
            raise ValueError(f"{want} of floating point, got {x.dtype}. clip_transform(model) makes it from uint8.")
        if x.dtype != weight.dtype and not autocasts(x):
            raise ValueError(f"{want} of {weight.dtype}, as the model is, got {x.dtype}. Use x.to({weight.dtype}).")
        if x.device != weight.device:
            raise ValueError(
                f"{want} on {weight.device}, where the model is, got one on {x.device}. Use x.to('{weight.device}')."
            )
        check_sizes(x.shape[2], (x.shape[3], x.shape[4]), None if self.dynamic_img_pad else self.patch_size)

    def embed(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The tokens of a clip batch.

        Args:
            x: (B, C, T, H, W).

        Returns:
            Class tokens (B, 1, D) and patches (B, T, h, w, D). Where every frame keeps its own class token
            (space-only), frames are clips of their own: (B·T, 1, D) and (B·T, 1, h, w, D).
        """
        self.check_input(x)
        frames, height, width = x.shape[2:]
        grid = self.patch_grid(height, width)
        pos = resample_pos_embed(self.pos_embed, self.grid_size[1:], grid)
        first, place = (self.cls_token + pos[:, :1]), pos[:, 1:].unflatten(1, grid).unsqueeze(1)  # 1 1 h w D
        if self.time_embed is not None:
            time = resample_time_embed(self.time_embed, frames, self.time_interpolation)
            place = place + time[:, :, None, None]  # 1 T h w D
        x = self.patch_embed(x.transpose(1, 2).flatten(0, 1))  # (B T) (h w) D
        x = x.unflatten(0, (-1, place.shape[1])).unflatten(2, grid)  # B T h w D
        cls = first.expand(x.shape[0], -1, -1)
        # The sum lies in memory as its first term does; of x, D is the slowest axis.
        patches = place + x
        return self.norm_pre(self.pos_drop(cls)), self.norm_pre(self.pos_drop(patches))


def autocasts(x: torch.Tensor) -> bool:
    """Whether autocast is on and brings x to its own number format; doubles it leaves as they are."""
    device = x.device.type
    return (
        x.dtype in (torch.float32, torch.float16, torch.bfloat16)
        and torch.amp.is_autocast_available(device)
        and torch.is_autocast_enabled(device)
    )


def check_sizes(frames: int, size: tuple[int, int], patch_size: Size | None) -> None:
    """Raise ValueError for sizes that do not fit; patch_size None where frames are padded to it."""
    if frames < 1:
        raise ValueError(f"Expected at least 1 frame, got {frames}.")
    if min(size) < 1:
        raise ValueError(f"Expected frames of at least 1 pixel a side, got {size[0]}x{size[1]} pixels.")
    if patch_size is not None:
        patch = to_pair(patch_size)
        if size[0] % patch[0] or size[1] % patch[1] or size[0] < patch[0] or size[1] < patch[1]:
            raise ValueError(
                f"Frames of {size[0]}x{size[1]} pixels are not a multiple of the patch, {patch[0]}x{patch[1]}. Resize "
                "them, or create the model with dynamic_img_pad=True to pad them."
            )


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
    return resample_abs_pos_embed(pos_embed, list(new), list(old), num_prefix_tokens=1)


def resample_time_embed(time_embed: torch.Tensor, frames: int, mode: TimeInterpolation = "linear") -> torch.Tensor:
    """Resample time embeddings to another number of frames.

    Args:
        time_embed: (1, T, D).
        frames: frames wanted. The same number gives the same tensor back.
        mode: how.

    Returns:
        (1, frames, D).
    """
    if time_embed.shape[1] == frames:
        return time_embed
    if mode.startswith("first") and frames < time_embed.shape[1]:
        return time_embed[:, :frames]
    x = time_embed.float().transpose(1, 2)
    if mode == "nearest":
        x = F.interpolate(x, size=frames, mode="nearest")
    else:
        x = F.interpolate(x, size=frames, mode="linear", align_corners=mode == "first_aligned")
    return x.transpose(1, 2).to(time_embed.dtype)
