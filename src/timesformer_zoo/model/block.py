"""The block: the attention steps of a mode in their order, then an MLP.

Legend: B batch, T frames, h w patch rows and columns, L = 1 + T·h·w tokens (class token first, then patches in
t h w order), D width, H heads, d = D / H; G groups of S patches.

Paper: Bertasius, Wang, Torresani, "Is Space-Time Attention All You Need for Video Understanding?", ICML 2021,
arXiv 2102.05095, section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import DropPath, Mlp, use_fused_attn
from torch import nn

from timesformer_zoo.model.attention import AttentionMode, Grid, Step
from timesformer_zoo.model.inference import CHUNK_TOKENS, Linears, chunks, eager_inference, plain_attention_faster

__all__ = ["AttentionStep", "Block", "hooked"]

Apply = Callable[[nn.Module, torch.Tensor], torch.Tensor]


def call(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """layer(x)."""
    y: torch.Tensor = layer(x)
    return y


def hooked(module: nn.Module) -> bool:
    """Whether anybody looks into a module or its parts as they run."""
    return any(
        part._forward_hooks or part._forward_pre_hooks or part._backward_hooks or part._backward_pre_hooks
        for part in module.modules()
    )


class AttentionStep(nn.Module):
    """Self-attention within the groups of one `Step`, with its norm and its residual.

    Every step of a block but the last owns `fc`, a linear layer after the projection that starts at zero (the
    authors' `temporal_fc`), so that a model which starts from an image ViT starts with its last step alone.
    """

    def __init__(
        self,
        step: Step,
        dim: int,
        num_heads: int,
        *,
        last: bool,
        qkv_bias: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        drop_path: float = 0.0,
        norm_layer: Callable[..., nn.Module] = nn.LayerNorm,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.step = step
        self.num_heads = num_heads
        self.fused_attn = use_fused_attn()
        self.norm = norm_layer(dim, device=device, dtype=dtype)
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias, device=device, dtype=dtype)
        self.attn_drop = nn.Dropout(attn_drop)
        self.proj = nn.Linear(dim, dim, device=device, dtype=dtype)
        self.proj_drop = nn.Dropout(proj_drop)
        self.drop_path = DropPath(drop_path)
        self.fc = None if last else nn.Linear(dim, dim, device=device, dtype=dtype)

    def forward(self, x: torch.Tensor, grid: Grid, class_only: bool = False) -> torch.Tensor:
        """x + fc(drop_path(proj(attention(norm(x))))), the authors' order.

        Args:
            x: (B, L, D).
            grid: (T, h, w) of the patches in x.
            class_only: the class token alone is wanted of the result.

        Returns:
            (B, L, D), or (B, 1, D).
        """
        y = self.norm(x)
        cls, patches = y.split([1, y.shape[1] - 1], 1)  # not two slices: their gradients would each be as large as y
        keep = self.drop_path(x.new_ones(x.shape[0], 1, 1)) if self.training else None
        views = self.step.views(patches.unflatten(1, grid), grid)
        outputs = [self._attend(view, cls, keep, class_only=class_only) for view in views]
        joined = int(self.step.class_token)
        parts = [out.split([joined, out.shape[2] - joined], 2) for out in outputs]
        first = self._class_residual([part for part, _ in parts], cls)
        if class_only:
            return x[:, :1] + first
        groups = [part.reshape(view.shape) for (_, part), view in zip(parts, views, strict=True)]
        residual = self.step.ungroup(groups, grid).flatten(1, 3)  # B (T h w) D
        return x + torch.cat([first, residual], 1)

    def add_(self, x: torch.Tensor, grid: Grid, class_only: bool = False) -> None:
        """`forward` for inference: x (B, L, D) becomes the result, a chunk of groups at a time, with no copy of it.

        With `class_only` the class token becomes its result, and the patches stay as they are.
        """
        patches_per_clip = grid[0] * grid[1] * grid[2]
        linears = Linears(x)
        for clips in x.split(max(1, CHUNK_TOKENS // patches_per_clip)):
            cls = self.norm(clips[:, :1])
            outputs = []
            for view in self.step.views(clips[:, 1:].unflatten(1, grid), grid):
                for part in chunks(view, view.ndim - 2 - len(self.step.axes)):
                    out = self._attend(self.norm(part), cls, apply=linears, class_only=class_only)
                    if not class_only:
                        part.add_(out[:, :, self.step.class_token :].reshape(part.shape))
                    if self.step.class_token:
                        outputs.append(out[:, :, :1].clone())  # a view would keep all of it in memory
            clips[:, :1] += self._class_residual(outputs, cls)

    def _class_residual(self, outputs: list[torch.Tensor], like: torch.Tensor) -> torch.Tensor:
        """The mean of the class token's residuals in all groups, (B, G, 1, D) -> (B, 1, D); 0 if it joins none."""
        return torch.cat(outputs, 1).mean(1) if self.step.class_token else torch.zeros_like(like)

    def _attend(
        self,
        groups: torch.Tensor,
        cls: torch.Tensor,
        keep: torch.Tensor | None = None,
        apply: Apply = call,
        class_only: bool = False,
    ) -> torch.Tensor:
        """Attention within groups of normalised patches.

        Args:
            groups: (B, *numbering axes, *attended axes, D).
            cls: (B, 1, D) normalised class token.
            keep: (B, 1, 1) drop-path factor of each clip.
            apply: how a linear layer is applied.
            class_only: the class token alone asks.

        Returns:
            The residuals of each group, (B, G, S, D), first the class token's if it joins; of it alone, (B, G, 1, D).
        """
        batch, inner = groups.shape[0], len(self.step.axes)
        y: torch.Tensor = groups.flatten(-1 - inner, -2)  # B *numbering S D
        if self.step.class_token:
            first = cls.view(batch, *[1] * (y.ndim - 2), y.shape[-1]).expand(*y.shape[:-2], 1, -1)
            y = torch.cat([first, y], -2)
        count = y.shape[1:-2].numel()  # G
        # (B G) S D, S now with the class token if it joins. Gathered: a view would be multiplied in many small products
        y = y.flatten(0, -3).contiguous()
        y = self._attention(apply(self.qkv, y), queries=1 if class_only else None)
        y = call(self.proj_drop, apply(self.proj, y))
        if keep is not None:  # one factor a clip, whatever the number of its groups
            y = (y.unflatten(0, (batch, count)) * keep.unsqueeze(1)).flatten(0, 1)
        y = y if self.fc is None else apply(self.fc, y)
        y = y.unflatten(0, (batch, count))
        return y

    def _attention(self, qkv: torch.Tensor, queries: int | None = None) -> torch.Tensor:
        """Multi-head self-attention over the second dimension, before the projection.

        Args:
            qkv: (N, S, 3 D).
            queries: how many of the tokens ask, the first ones; None for all.

        Returns:
            (N, S or queries, D).
        """
        q, k, v = qkv.unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)  # N H S d each
        q = q[:, :, :queries]
        if self.fused_attn and not (self.training and plain_attention_faster(k)):
            x = F.scaled_dot_product_attention(q, k, v, dropout_p=self.attn_drop.p if self.training else 0.0)
        else:  # the one way in which attention maps exist as tensors: `attn_drop` is where to hook them
            weights = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
            x = self.attn_drop(weights.softmax(-1)) @ v
        return x.transpose(1, 2).flatten(2)

    @torch.no_grad()
    def fuse(self) -> AttentionStep:
        """Fold `fc` into `proj` for inference; without an `fc`, or once folded, there is nothing to do.

        Returns:
            Itself, as timm's `reparameterize_model` expects.

        Raises:
            ValueError: in training mode, or if one of the two is no longer a plain linear layer.
        """
        if self.training:
            raise ValueError("fuse() folds layers that training must keep apart. Call model.eval() before it.")
        if self.fc is None:
            return self
        for layer in (self.proj, self.fc):
            if type(layer) is not nn.Linear:  # adapters wrap a layer, and hide what they add to its weight
                raise ValueError(
                    f"fuse() needs nn.Linear layers, got {type(layer).__name__}. Merge adapters into their layers "
                    "first (peft: merge_and_unload())."
                )
        weight, bias = self.proj.weight.cpu().double(), self.proj.bias.cpu().double()
        fc_weight, fc_bias = self.fc.weight.cpu().double(), self.fc.bias.cpu().double()
        self.proj.weight.copy_(fc_weight @ weight)
        self.proj.bias.copy_(fc_weight @ bias + fc_bias)
        self.fc = None
        return self


class Block(nn.Module):
    """The attention steps of a mode in their order, then the MLP; pre-norm, each with a residual."""

    def __init__(
        self,
        mode: AttentionMode,
        dim: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        *,
        qkv_bias: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        drop_path: float = 0.0,
        norm_layer: Callable[..., nn.Module] = nn.LayerNorm,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.steps = nn.ModuleDict(
            {
                step.name: AttentionStep(
                    step,
                    dim,
                    num_heads,
                    last=step is mode.steps[-1],
                    qkv_bias=qkv_bias,
                    attn_drop=attn_drop,
                    proj_drop=proj_drop,
                    drop_path=drop_path,
                    norm_layer=norm_layer,
                    device=device,
                    dtype=dtype,
                )
                for step in mode.steps
            }
        )
        self.norm = norm_layer(dim, device=device, dtype=dtype)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), drop=proj_drop, device=device, dtype=dtype)
        self.drop_path = DropPath(drop_path)

    def attention_steps(self) -> Iterator[AttentionStep]:
        """The steps in order, typed."""
        for step in self.steps.values():
            assert isinstance(step, AttentionStep)  # for the type checker
            yield step

    def _plain(self) -> bool:
        """Whether nobody looks inside: no training, no hook that waits for a whole output, no attention maps."""
        return not self.training and all(step.fused_attn for step in self.attention_steps()) and not hooked(self)

    def _mlp(self, x: torch.Tensor, apply: Linears) -> torch.Tensor:
        """self.mlp(x) in inference; what somebody put in its place runs as it is."""
        mlp = self.mlp
        plain = type(mlp) is Mlp and "forward" not in vars(mlp)
        if not plain or type(mlp.act) is not nn.GELU or mlp.act.approximate != "none":
            return call(mlp, x)
        return apply(mlp.fc2, mlp.norm(apply(mlp.fc1, x, gelu=True)))

    def forward(self, x: torch.Tensor, grid: Grid, class_only: bool = False) -> torch.Tensor:
        """(B, L, D) -> (B, L, D), or with `class_only` the class token alone, (B, 1, D), which takes half the work.

        `grid` is (T, h, w) of the patches in x. In eager inference on a CPU, residuals are added in place and in
        chunks, and the input stays as it is.
        """
        *steps, last = self.attention_steps()
        if eager_inference(x) and self._plain():
            x = x.clone(memory_format=torch.contiguous_format)  # once a block: whoever holds its input may keep it
            for step in steps:
                step.add_(x, grid)
            last.add_(x, grid, class_only)
            x = x[:, :1].clone() if class_only else x
            linears = Linears(x)
            for tokens in x.flatten(0, 1).split(CHUNK_TOKENS):
                tokens.add_(self._mlp(self.norm(tokens), linears))
            return x
        for step in steps:
            x = step(x, grid)
        x = last(x, grid, class_only)
        x = x + self.drop_path(self.mlp(self.norm(x)))
        return x
