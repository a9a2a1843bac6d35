"""The block: the attention steps of a mode in their order, then an MLP.

Legend: B batch, T frames, h w patch rows and columns, D width, H heads, d = D / H. A step cuts the patches into G
groups; S tokens of a group, the class token among them (first) where it joins.

The class token and the patches are two tensors all along: joined to one that is cut and joined anew, step after step,
they are more than torch's compiler can follow (pytorch issue 191603), and copies.

Paper: Bertasius, Wang, Torresani, "Is Space-Time Attention All You Need for Video Understanding?", ICML 2021,
arXiv 2102.05095, section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from timm.layers import DropPath, Mlp, use_fused_attn
from torch import nn

from timesformer_zoo.model import inference, kernel
from timesformer_zoo.model.attention import AttentionMode, Step

__all__ = ["AttentionStep", "Block"]

PLAIN_KEYS = {
    ("cpu", torch.float32): (16, 0),
    ("cpu", torch.bfloat16): (256, 256),
    ("cuda", torch.float32): (16, 16),
    ("cuda", torch.float16): (8, 16),
    ("cuda", torch.bfloat16): (8, 16),
}
"""(device, dtype) -> up to how many keys two products are faster than fused attention, in inference and in training.

Measured: benchmarks/RESULTS.md.
"""


class AttentionStep(nn.Module):
    """Self-attention within the groups of one `Step`, with its norm and its residual.

    Every step of a block but the last owns `fc`, a linear layer after the projection that starts at zero (the
    authors' `temporal_fc`), so that a model which starts from an image ViT starts with its last step alone. Where the
    mode has no such layer, the projection starts at zero.

    Args:
        step: the groups.
        dim: D.
        num_heads: H.
        last: of its block.
        drops: rates of "attn_drop" (attention weights), "proj_drop" (after the projection) and "drop_path".
        qkv_bias: whether queries, keys and values have a bias.
        norm_layer: makes a norm of a width.
    """

    def __init__(
        self,
        step: Step,
        dim: int,
        num_heads: int,
        last: bool,
        drops: dict[str, float],
        qkv_bias: bool,
        norm_layer: Callable[[int], nn.Module],
    ) -> None:
        super().__init__()
        self.step = step
        self.num_heads = num_heads
        self.fused_attn = use_fused_attn()
        self.norm = norm_layer(dim)
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.attn_drop = nn.Dropout(drops["attn_drop"])
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(drops["proj_drop"])
        self.drop_path = DropPath(drops["drop_path"] if step.drops_path else 0.0)
        self.fc: nn.Module | None = None if last or not step.linear else nn.Linear(dim, dim)
        self.last = last

    def forward(
        self,
        cls: torch.Tensor,
        patches: torch.Tensor,
        class_only: bool = False,
        block: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """x + fc(drop_path(proj(attention(norm(x))))), the authors' order.

        Args:
            cls: (B, 1, D).
            patches: (B, T, h, w, D).
            class_only: the class token alone is wanted, and the patches come back as they were.
            block: the same two as the block got them, for a step whose outputs are added to those; None: as this step.

        Returns:
            The same two.
        """
        joins = self.step.class_token
        if class_only and not joins:
            return cls, patches
        if self.step.class_sees_all:
            first, rest = (cls, patches) if block is None or self.step.onto == "step" else block
            tokens = self.project(self.attend_all(cls, patches, class_only))  # B 1 D, or B L D
            if class_only:
                return first + tokens, patches
            own, others = tokens.split([1, tokens.shape[1] - 1], 1)
            return first + own, rest + others.view_as(patches)
        if kernel.applies(self, patches):
            return cls, patches + self.project(kernel.attention(self, self.qkv(self.norm(patches))))
        _, t, h, w, _ = patches.shape
        grid = t, h, w
        views = [self.step.view(patches, cell) for cell in self.step.cells(grid)]
        outputs = [self.attend(view, cls, class_only=class_only) for view in views]
        # All cells at once: the projection's layers go token by token, and drop path has one factor a clip.
        residual = self.project(_cat([output.flatten(1, 2) for output in outputs]))  # B (G S) D
        parts = _split(residual, [output.shape[1:3].numel() for output in outputs])
        parts = [part.view_as(output) for part, output in zip(parts, outputs, strict=True)]  # B G S D
        if joins:  # the class token is in each group: the mean over the groups
            pairs = [part.split([1, part.shape[2] - 1], 2) for part in parts]
            cls, parts = cls + _cat([first for first, _ in pairs]).mean(1), [rest for _, rest in pairs]
        if not class_only:
            rows = [part.reshape(view.shape) for part, view in zip(parts, views, strict=True)]
            patches = patches + self.step.ungroup(rows, grid)
        return cls, patches

    def project(self, y: torch.Tensor) -> torch.Tensor:
        """What a step adds to its tokens, of what attention gives them: (B, …, D) -> (B, …, D)."""
        y = self.drop_path(self.proj_drop(self.proj(y)))
        return y if self.fc is None else self.fc(y)

    def attend(
        self,
        view: torch.Tensor,
        cls: torch.Tensor,
        linear: Callable[[nn.Module, torch.Tensor], torch.Tensor] = lambda layer, x: layer(x),
        class_only: bool = False,
    ) -> torch.Tensor:
        """Attention within groups of patches, with the norm before it and without the projection after it.

        Args:
            view: of the patches, (B, *axes that number groups, *axes attended, D).
            cls: (B, 1, D).
            linear: how a linear layer is applied.
            class_only: the class token alone asks.

        Returns:
            (B, G, S, D); where the class token alone asks, (B, G, 1, D).
        """
        tokens = view.flatten(-1 - len(self.step.axes), -2)  # B *numbering S D
        if self.step.class_token:
            first = cls.view(-1, *[1] * (tokens.ndim - 2), cls.shape[-1]).expand(*tokens.shape[:-2], 1, -1)
            tokens = torch.cat([first, tokens], -2)
        count = tokens.shape[1:-2].numel()  # G
        # (B G) S D. Gathered here: the product with a view would be one of many small matrices.
        tokens = self.norm(tokens.flatten(0, -3).contiguous())
        q, k, v = self.heads(linear(self.qkv, tokens))
        del tokens  # freed for attention's output to lie there, else the C library returns memory and asks for it again
        q = q[:, :, :1] if class_only else q  # (B G) H S d
        return self.weigh(q, k, v).unflatten(0, (-1, count))

    def attend_all(self, cls: torch.Tensor, patches: torch.Tensor, class_only: bool = False) -> torch.Tensor:
        """Attention where the class token sees all tokens of a clip, and patches see their group and the class token.

        Queries, keys and values are computed once for all tokens, and then cut: every token's are wanted twice.

        Args:
            cls: (B, 1, D).
            patches: (B, T, h, w, D).
            class_only: the class token alone asks.

        Returns:
            (B, L, D); where the class token alone asks, (B, 1, D).
        """
        _, t, h, w, _ = patches.shape
        qkv = self.qkv(self.norm(torch.cat([cls, patches.flatten(1, 3)], 1)))  # B L 3D
        q, k, v = self.heads(qkv)
        first = self.weigh(q[:, :, :1], k, v)  # B 1 D
        if class_only:
            return first
        own, rest = qkv[:, :1], qkv[:, 1:].unflatten(1, (t, h, w))
        outputs = []
        for cell in self.step.cells((t, h, w)):
            view = self.step.view(rest, cell)  # B *numbering *attended 3D
            tokens = view.flatten(-1 - len(self.step.axes), -2)  # B *numbering S 3D
            joined = own.view(-1, *[1] * (tokens.ndim - 2), own.shape[-1]).expand(*tokens.shape[:-2], 1, -1)
            q, k, v = self.heads(torch.cat([joined, tokens], -2).flatten(0, -3))  # (B G) H 1+S d
            outputs.append(self.weigh(q[:, :, 1:], k, v).reshape(*view.shape[:-1], patches.shape[-1]))
        return torch.cat([first, self.step.ungroup(outputs, (t, h, w)).flatten(1, 3)], 1)

    def heads(self, qkv: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Queries, keys and values (N, S, 3 D), each as (N, H, S, d)."""
        # Taken apart along an axis that stays where it is: the gradients are put together in place, without a copy.
        return tuple(x.transpose(1, 2) for x in qkv.unflatten(-1, (3, self.num_heads, -1)).unbind(2))

    def weigh(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """softmax(q k / √d) v: queries (N, H, Q, d), keys and values (N, H, S, d) -> (N, Q, D)."""
        few = k.shape[2] <= PLAIN_KEYS.get((k.device.type, k.dtype), (0, 0))[int(self.training)]
        if self.fused_attn and not few:
            out = F.scaled_dot_product_attention(q, k, v, dropout_p=self.attn_drop.p if self.training else 0.0)
        else:  # the one way in which attention maps exist as tensors: `attn_drop` is where to hook them
            weights = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
            out = self.attn_drop(weights.softmax(-1)) @ v
        return out.transpose(1, 2).flatten(2)

    def starts_at_zero(self) -> nn.Module | None:
        """The layer by which a new model leaves this step out; None: the block's last step, which is not left out."""
        return None if self.last else self.proj if self.fc is None else self.fc

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
        weight, bias, fc_weight, fc_bias = (p.cpu().double() for p in (*self.proj.parameters(), *self.fc.parameters()))
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
        mlp_ratio: float,
        drops: dict[str, float],
        qkv_bias: bool,
        norm_layer: Callable[[int], nn.Module],
        act_layer: type[nn.Module] = nn.GELU,
    ) -> None:
        super().__init__()
        self.steps: nn.ModuleDict = nn.ModuleDict()
        for step in mode.steps:
            last = step is mode.steps[-1]
            self.steps[step.name] = AttentionStep(step, dim, num_heads, last, drops, qkv_bias, norm_layer)
        self.norm = norm_layer(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), act_layer=act_layer, drop=drops["proj_drop"])
        self.drop_path = DropPath(drops["drop_path"])

    def forward(
        self, cls: torch.Tensor, patches: torch.Tensor, class_only: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Class tokens (B, 1, D) and patches (B, T, h, w, D) -> the same.

        With `class_only` the class token alone is wanted, which takes half the work: what comes back of the patches is
        of no use.
        """
        if inference.applies(self, patches):
            return inference.block(self, cls, patches, class_only)
        *steps, last = self.steps.values()
        given = cls, patches
        for step in steps:
            cls, patches = step(cls, patches, block=given)
        cls, patches = last(cls, patches, class_only, given)
        if class_only:
            return cls + self.drop_path(self.mlp(self.norm(cls))), patches
        tokens = torch.cat([cls, patches.flatten(1, 3)], 1)  # for one product, not two
        first, rest = self.drop_path(self.mlp(self.norm(tokens))).split([1, tokens.shape[1] - 1], 1)
        return cls + first, patches + rest.view_as(patches)


# One alone stays as it is, where torch would copy it, or its gradient.


def _cat(tensors: list[torch.Tensor]) -> torch.Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors, 1)


def _split(tensor: torch.Tensor, sizes: list[int]) -> Sequence[torch.Tensor]:
    # Not slices: the gradient of each is as large as the whole.
    return [tensor] if len(sizes) == 1 else tensor.split(sizes, 1)
