"""The five attention modes: which tokens attend to which, and the block that is made of them.

Legend: B batch, T frames, h w patch rows and columns, L = 1 + T·h·w tokens (class token first, then patches in
t h w order), D width, H heads, d = D / H. A step cuts the grid of patches into groups; G groups of S patches.

Paper: Bertasius, Wang, Torresani, "Is Space-Time Attention All You Need for Video Understanding?", ICML 2021,
arXiv 2102.05095, section 3 and figure 2.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import DropPath, Mlp, use_fused_attn
from torch import nn

__all__ = ["AttentionMode", "AttentionStep", "Block", "Step"]

Grid = tuple[int, int, int]
"""(T, h, w): frames, patch rows, patch columns."""

Cell = tuple[slice, slice, slice]
"""The part of a grid that a group may not reach out of."""


@dataclass(frozen=True)
class Step:
    """What one attention step attends over: every patch sees the patches of its group, and no others.

    A group varies along `axes` and is constant along the others, within one cell of the grid.
    """

    name: str
    axes: str  # the axes a patch attends along, out of "thw"
    halves: str = ""  # axes cut in two neighbouring halves, the first the longer one
    phases: str = ""  # axes cut in even and odd positions, that is, a stride of 2
    class_token: bool = True  # the class token joins each group, and its outputs are averaged over the groups

    def cells(self, grid: Grid) -> list[Cell]:
        """The cells that `grid` is cut into; an axis too short to be cut gives no empty cell."""

        def cuts(axis: str, size: int) -> list[slice]:
            if axis in self.halves and size > 1:
                return [slice(0, (size + 1) // 2), slice((size + 1) // 2, None)]
            if axis in self.phases and size > 1:
                return [slice(0, None, 2), slice(1, None, 2)]
            return [slice(None)]

        t, h, w = (cuts(axis, size) for axis, size in zip("thw", grid, strict=True))
        return list(itertools.product(t, h, w))

    def order(self) -> list[int]:
        """Permutation of the dimensions B T h w D: batch, the axes that number the groups, `axes`, width."""
        others = [i for i, axis in enumerate("thw", 1) if axis not in self.axes]
        return [0, *others, *(i for i, axis in enumerate("thw", 1) if axis in self.axes), 4]

    def groups(self, patches: torch.Tensor, cell: Cell) -> torch.Tensor:
        """A view of the patches (B, T, h, w, D) of one cell: (B, *axes that number groups, *axes attended, D)."""
        t, h, w = cell
        view = patches[:, t, h, w].permute(self.order())
        return view if len(self.axes) < 3 else view.unsqueeze(1)

    def ungroup(self, outputs: list[torch.Tensor], cells: list[Cell], grid: Grid) -> torch.Tensor:
        """The inverse of `groups` over all cells: (B, T, h, w, D)."""
        order = self.order()
        back = [order.index(i) for i in range(5)]
        outputs = [(x.squeeze(1) if len(self.axes) == 3 else x).permute(back) for x in outputs]
        if len(cells) == 1:
            return outputs[0]
        out = outputs[0].new_empty(outputs[0].shape[0], *grid, outputs[0].shape[-1])
        for (t, h, w), x in zip(cells, outputs, strict=True):
            out[:, t, h, w] = x
        return out


SPACE = Step("space", axes="hw")
SPACE_TIME = Step("space_time", axes="thw")
TIME = Step("time", axes="t", class_token=False)  # as in the authors' code; the paper's equation lets it join
LOCAL = Step("local", axes="thw", halves="hw")
SPARSE_GLOBAL = Step("sparse_global", axes="thw", phases="thw")  # a module named "global" would break torch.export
WIDTH = Step("width", axes="w")
HEIGHT = Step("height", axes="h")


class AttentionMode(str, Enum):
    """The attention modes of the paper's Table 1. A mode is its steps, in the order in which a block takes them."""

    steps: tuple[Step, ...]
    per_frame: bool  # every frame keeps a class token of its own, and there is no time embedding

    SPACE_ONLY = "space_only", (SPACE,), True
    JOINT = "joint", (SPACE_TIME,)
    DIVIDED = "divided", (TIME, SPACE)
    LOCAL_GLOBAL = "local_global", (LOCAL, SPARSE_GLOBAL)
    AXIAL = "axial", (TIME, WIDTH, HEIGHT)

    def __new__(cls, value: str, steps: tuple[Step, ...] = (), per_frame: bool = False) -> AttentionMode:
        member = str.__new__(cls, value)
        member._value_ = value
        member.steps = steps
        member.per_frame = per_frame
        return member

    def __str__(self) -> str:
        return str(self.value)

    @classmethod
    def _missing_(cls, value: object) -> AttentionMode:
        for mode in cls:  # the authors' spellings: divided_space_time, joint_space_time
            if value == f"{mode.value}_space_time":
                return mode
        raise ValueError(f"Unknown attention mode {value!r}. Choose one of: {', '.join(mode.value for mode in cls)}.")


CHUNK_TOKENS = 2048
"""Tokens worked on at once in inference on a CPU: their activations stay in its cache and in reused memory."""


def eager_inference(x: torch.Tensor) -> bool:
    """Whether x is on a CPU and nobody records what is done to it, no gradient and no compiler."""
    return (
        x.device.type == "cpu"
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
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

    def forward(self, x: torch.Tensor, grid: Grid) -> torch.Tensor:
        """x + fc(drop_path(proj(attention(norm(x))))), the authors' order.

        Args:
            x: (B, L, D).
            grid: (T, h, w) of the patches in x.

        Returns:
            (B, L, D).
        """
        y = self.norm(x)
        cls, patches = y[:, :1], y[:, 1:].unflatten(1, grid)
        keep = self.drop_path(x.new_ones(x.shape[0], 1, 1)) if self.training else None
        cells = self.step.cells(grid)
        outputs = [self._attend(self.step.groups(patches, cell), cls, keep) for cell in cells]
        residual = self.step.ungroup([out for out, _ in outputs], cells, grid).flatten(1, 3)  # B (T h w) D
        if self.step.class_token:
            cls = torch.cat([c for _, c in outputs], 1).mean(1, keepdim=True)
        else:
            cls = torch.zeros_like(residual[:, :1])
        return x + torch.cat([cls, residual], 1)

    def add_(self, x: torch.Tensor, grid: Grid) -> None:
        """`forward` for inference: x (B, L, D) becomes the result, a chunk of groups at a time, with no copy of it."""
        patches_per_clip = grid[0] * grid[1] * grid[2]
        for clips in x.split(max(1, CHUNK_TOKENS // patches_per_clip)):
            cls = self.norm(clips[:, :1])
            patches = clips[:, 1:].unflatten(1, grid)
            cls_outputs = []
            for cell in self.step.cells(grid):
                groups = self.step.groups(patches, cell)
                tokens = groups[:, :1].numel() // groups.shape[-1]
                for part in groups.split(max(1, CHUNK_TOKENS // tokens), 1):
                    out, cls_out = self._attend(self.norm(part), cls)
                    part.add_(out)
                    cls_outputs.append(cls_out)
            if self.step.class_token:
                clips[:, :1] += torch.cat(cls_outputs, 1).mean(1, keepdim=True)

    def _attend(
        self, groups: torch.Tensor, cls: torch.Tensor, keep: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Attention within groups of normalised patches.

        Args:
            groups: (B, *numbering axes, *attended axes, D).
            cls: (B, 1, D) normalised class token.
            keep: (B, 1, 1) drop-path factor of each clip.

        Returns:
            The residual of the patches, in the shape of `groups`, and of the class token in each group, (B, G, D).
        """
        shape, inner = groups.shape, len(self.step.axes)
        y = groups.flatten(-1 - inner, -2)  # B *numbering S D
        if self.step.class_token:
            first = cls.view(shape[0], *[1] * (y.ndim - 2), shape[-1]).expand(*y.shape[:-2], 1, -1)
            y = torch.cat([first, y], -2)
        y = y.flatten(0, -3)  # (B G) S D, S now with the class token if it joins
        y = self.proj_drop(self.proj(self._attention(y)))
        if keep is not None:  # one factor a clip, whatever the number of its groups
            y = (y.unflatten(0, (shape[0], -1)) * keep.unsqueeze(1)).flatten(0, 1)
        y = (y if self.fc is None else self.fc(y)).unflatten(0, (shape[0], -1))  # B G S D
        if self.step.class_token:
            return y[:, :, 1:].reshape(shape), y[:, :, 0]
        return y.reshape(shape), y[:, :0, 0]

    def _attention(self, x: torch.Tensor) -> torch.Tensor:
        """Multi-head self-attention over the second dimension: (N, S, D) -> (N, S, D), before the projection."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)  # N H S d each
        if self.fused_attn:
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
        return (
            not self.training
            and all(step.fused_attn for step in self.attention_steps())
            and not any(module._forward_hooks or module._forward_pre_hooks for module in self.modules())
        )

    def forward(self, x: torch.Tensor, grid: Grid) -> torch.Tensor:
        """(B, L, D) -> (B, L, D); `grid` is (T, h, w) of the patches in x.

        In eager inference on a CPU, residuals are added in place and in chunks, and the input stays as it is.
        """
        if eager_inference(x) and self._plain():
            x = x.clone(memory_format=torch.contiguous_format)  # once a block: whoever holds its input may keep it
            for step in self.attention_steps():
                step.add_(x, grid)
            for tokens in x.flatten(0, 1).split(CHUNK_TOKENS):
                tokens.add_(self.mlp(self.norm(tokens)))
            return x
        for step in self.attention_steps():
            x = step(x, grid)
        x = x + self.drop_path(self.mlp(self.norm(x)))
        return x
