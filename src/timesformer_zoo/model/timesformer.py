"""TimeSformer: a vision transformer over the patches of a clip.

Legend: B batch, C channels, T frames, H W pixels, h w patch rows and columns, L = 1 + T·h·w tokens, D width.

Paper: Bertasius, Wang, Torresani, "Is Space-Time Attention All You Need for Video Understanding?", ICML 2021,
arXiv 2102.05095.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from timm.layers import get_act_layer, trunc_normal_
from timm.models import checkpoint
from timm.models._features import feature_take_indices
from torch import nn

from timesformer_zoo.model.attention import AttentionMode
from timesformer_zoo.model.block import AttentionStep, Block
from timesformer_zoo.model.embedding import ClipEmbedding, Size, TimeInterpolation
from timesformer_zoo.model.inference import hooked

__all__ = ["TimeSformer", "expect_timesformer"]

Pool = Literal["token", "avg", "frame", ""]
POOLS = ("token", "avg", "frame", "")


class TimeSformer(ClipEmbedding):
    """A TimeSformer in any attention mode.

    Input (B, C, T, H, W), float; logits (B, num_classes). Any number of frames and any size that the patch size
    divides work at any time: embeddings are resampled where a clip differs from `num_frames` and `img_size`.

    Args:
        img_size: pixels, (height, width) or one int for both, that the position embeddings are made for.
        patch_size: pixels of a patch, likewise.
        num_frames: frames that the time embeddings are made for.
        in_chans: channels of a frame.
        num_classes: classes; 0 for no head: the output is then the pooled feature (B, D).
        attention: the mode, an `AttentionMode` or its value.
        embed_dim: D.
        depth: number of blocks.
        num_heads: attention heads; divides D.
        mlp_ratio: width of the MLP over D.
        qkv_bias: whether queries, keys and values have a bias.
        patch_bias: whether the patch embedding has a bias; CLIP's image ViTs have none.
        pre_norm: a norm before the first block, for weights that start from CLIP's image ViTs.
        norm_eps: what the norms add to the variance.
        pre_norm_eps: likewise of the norm before the first block; None: as the others.
        act_layer: activation of the MLPs by timm's name: "gelu", "quick_gelu" (CLIP's), ….
        global_pool: what the head sees: "token" (the class token), "avg" (mean over patches), or "frame" (mean over
            the patches of each frame: features (B, T, D), logits (B, T, num_classes)), or "" (every token: features
            (B, 1 + T·h·w, D), logits (B, 1 + T·h·w, num_classes), as timm's ViT has it).
        drop_rate, pos_drop_rate, proj_drop_rate, attn_drop_rate: dropout before the head, after the embeddings,
            after projections and in the MLP, on attention weights.
        drop_path_rate: stochastic depth of the last block; it grows linearly from 0. The paper trains with 0.1.
        dynamic_img_pad: pad frames on the right and bottom to a multiple of the patch size instead of refusing them.
        time_interpolation: how time embeddings are resampled, see `TimeInterpolation`: "linear", "nearest" as the
            authors' loader does, or "first" and "first_aligned" for models of Frozen in Time's kind.
        clip: how clips for this model are sampled and cropped, fields of `ClipSpec` that differ from the
            default. Kept so that a saved model carries them; the forward pass does not use them.
        weight_init: "" for the paper's initialisation; "skip" leaves all but the head uninitialised, for a
            checkpoint to fill at once.
        device, dtype: of the parameters.

    Raises:
        ValueError: for an unknown mode or pooling, or sizes that do not fit each other.
    """

    pretrained_cfg: dict[str, Any]  # set by timm on models that its factories build
    pretrained_model_args: dict[str, Any]  # likewise: the arguments saved beside the weights
    bgr: bool = False  # set by our factories: the weights published for this model were trained on BGR frames
    _no_split_modules: ClassVar[list[str]] = ["Block"]
    """What accelerate shards by itself under FSDP, and keeps on one device."""
    fit_state_dict: ClassVar[Callable[[TimeSformer, Mapping[str, Any], bool], Mapping[str, Any]] | None] = None
    """What `load_state_dict` makes of a state dict first; set by `weights.fit`, which this room does not know."""

    def __init__(
        self,
        img_size: Size = 224,
        patch_size: Size = 16,
        num_frames: int = 8,
        in_chans: int = 3,
        num_classes: int = 400,
        attention: AttentionMode | str = AttentionMode.DIVIDED,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        patch_bias: bool = True,
        pre_norm: bool = False,
        norm_eps: float = 1e-6,
        pre_norm_eps: float | None = None,
        act_layer: str = "gelu",
        global_pool: Pool = "token",
        drop_rate: float = 0.0,
        pos_drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        dynamic_img_pad: bool = False,
        time_interpolation: TimeInterpolation = "linear",
        clip: dict[str, Any] | None = None,
        weight_init: Literal["", "skip"] = "",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        if embed_dim % num_heads:
            raise ValueError(f"embed_dim {embed_dim} is not a multiple of num_heads {num_heads}.")
        mode = AttentionMode(attention)
        norm_layer = partial(nn.LayerNorm, eps=norm_eps)
        norm_pre = partial(nn.LayerNorm, eps=norm_eps if pre_norm_eps is None else pre_norm_eps) if pre_norm else None
        activation = _activation(act_layer)
        target = torch.empty(0, device=device).device  # of None: where tensors are made by default
        with torch.device("meta" if weight_init == "skip" else target):
            sizes = (img_size, patch_size, num_frames, in_chans, embed_dim)
            super().__init__(
                *sizes, mode.per_frame, norm_pre, patch_bias, pos_drop_rate, dynamic_img_pad, time_interpolation
            )
            self.blocks = nn.ModuleList()
            for i in range(depth):
                drop_path = drop_path_rate * i / max(1, depth - 1)
                drops = dict(attn_drop=attn_drop_rate, proj_drop=proj_drop_rate, drop_path=drop_path)
                self.blocks.append(
                    Block(mode, embed_dim, num_heads, mlp_ratio, drops, qkv_bias, norm_layer, activation)
                )
            self.norm: nn.Module = norm_layer(embed_dim)
            self.head_drop = nn.Dropout(drop_rate)
            self.head: nn.Module = nn.Linear(embed_dim, num_classes) if num_classes else nn.Identity()
        self.attention = mode
        self.embed_dim = self.num_features = self.head_hidden_size = embed_dim
        self.depth, self.num_heads, self.num_classes, self.num_prefix_tokens = depth, num_heads, num_classes, 1
        self.clip = clip
        self.grad_checkpointing = False
        self._set_pool(global_pool)
        rates = dict(proj_drop_rate=proj_drop_rate, attn_drop_rate=attn_drop_rate, drop_path_rate=drop_path_rate)
        self._fixed_args: dict[str, Any] = dict(
            mlp_ratio=mlp_ratio, qkv_bias=qkv_bias, pre_norm=pre_norm, drop_rate=drop_rate
        )
        self._fixed_args |= dict(pos_drop_rate=pos_drop_rate, **rates)
        norms: dict[str, Any] = dict(norm_eps=norm_eps, pre_norm_eps=pre_norm_eps)
        self._fixed_args |= dict(patch_bias=patch_bias, act_layer=act_layer, **norms)
        reduction = self.patch_embed.feat_ratio()
        self.feature_info = [dict(module=f"blocks.{i}", num_chs=embed_dim, reduction=reduction) for i in range(depth)]
        self.to(dtype=dtype)
        if weight_init == "skip":
            self.to_empty(device=target)
            init_linear(self.head)
        elif target.type != "meta":
            self.init_weights()

    @torch.no_grad()
    def init_weights(self) -> None:
        """The authors' initialisation: normal(0.02) cut at ±2, biases zero; time embedding and every `fc` zero."""
        trunc_normal_(self.pos_embed, std=0.02)
        trunc_normal_(self.cls_token, std=0.02)
        if self.time_embed is not None:
            nn.init.zeros_(self.time_embed)
        for module in self.modules():
            init_linear(module)
            if isinstance(module, (nn.LayerNorm, nn.Conv2d)):  # for a model that was on the meta device
                module.reset_parameters()
        for step in self.attention_steps():
            if isinstance(layer := step.starts_at_zero(), nn.Linear):
                nn.init.zeros_(layer.weight)

    def attention_steps(self) -> Iterator[AttentionStep]:
        """The attention steps of all blocks, in the order in which they run."""
        for module in self.modules():
            if isinstance(module, AttentionStep):
                yield module

    def extra_repr(self) -> str:
        """What `repr(model)` says before its layers."""
        return f"attention={self.attention}, num_frames={self.num_frames}, img_size={self.img_size}"

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """torch's, for any format and size that is known; see `weights.fit`. Where it raises, nothing has changed."""
        if TimeSformer.fit_state_dict is not None:
            state_dict = TimeSformer.fit_state_dict(self, state_dict, strict)
        return super().load_state_dict(state_dict, strict, assign)

    @property
    def model_args(self) -> dict[str, Any]:
        """The constructor's arguments that make this model as it is now, plain enough for JSON; a saved config's."""
        names = (
            "num_frames in_chans num_classes embed_dim num_heads global_pool clip dynamic_img_pad time_interpolation"
        )
        sizes = dict(img_size=list(self.img_size), patch_size=list(self.patch_size))
        changed = dict(attention=self.attention.value, depth=len(self.blocks))
        return {**sizes, **changed, **{name: getattr(self, name) for name in names.split()}, **self._fixed_args}

    # ---- forward ----

    def _clips(self, x: torch.Tensor, frames: int) -> torch.Tensor:
        """Tokens of the blocks by clip: where frames ran as clips of their own, (B·T, 1, …) becomes (B, T, …)."""
        return x.unflatten(0, (-1, frames)).flatten(1, 2) if self.per_frame else x

    def final_tokens(self, cls: torch.Tensor, patches: torch.Tensor | None, frames: int) -> torch.Tensor:
        """The final norm over one class token and all patches, (B, 1 + T·h·w, D), or the class token alone."""
        cls = self._clips(cls, frames)
        if self.per_frame:
            cls = cls.mean(1, keepdim=True)
        if patches is None:
            return self.norm(cls)
        return self.norm(torch.cat([cls, self._clips(patches, frames).flatten(1, 3)], 1))

    def _run(self, block: nn.Module, *tokens: torch.Tensor, **options: Any) -> tuple[torch.Tensor, torch.Tensor]:
        return checkpoint(block, *tokens, **options) if self.grad_checkpointing else block(*tokens, **options)

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, T, H, W) -> normalised tokens (B, 1 + T·h·w, D), the class token first, patches in t h w order."""
        return self._features(x)

    def _features(self, x: torch.Tensor, class_only: bool = False) -> torch.Tensor:
        """`forward_features`, or the class token of it, (B, 1, D): the last block computes nothing for the patches."""
        cls, patches = self.embed(x)
        for i, block in enumerate(self.blocks, 1):
            options = {"class_only": True} if class_only and i == len(self.blocks) else {}
            cls, patches = self._run(block, cls, patches, **options)
        return self.final_tokens(cls, None if class_only else patches, x.shape[2])

    def _class_suffices(self) -> bool:
        """Whether the class token is all that anybody sees of the last block, which then leaves out the rest."""
        return (
            self.global_pool == "token"
            and type(self) is TimeSformer
            and len(self.blocks) > 0
            and type(self.blocks[-1]) is Block
            and not hooked(self.blocks[-1])
            and not hooked(self.norm)
        )

    def forward_head(self, x: torch.Tensor, pre_logits: bool = False, num_frames: int | None = None) -> torch.Tensor:
        """Pool and classify.

        Args:
            x: (B, 1 + T·h·w, D) from `forward_features`.
            pre_logits: stop before the classifier.
            num_frames: T of x; only global_pool="frame" needs it, and only at another size than the model's.

        Returns:
            Logits (B, num_classes), or the pooled feature (B, D); with global_pool="frame" one a frame, (B, T, …), with
            "" one a token, (B, 1 + T·h·w, …).

        Raises:
            ValueError: T is needed, and x has not as many tokens as a clip of the model's own size.
        """
        if self.global_pool == "token":
            x = x[:, 0]
        elif self.global_pool == "avg":
            x = x[:, 1:].mean(1)
        elif self.global_pool == "frame":
            if num_frames is None and x.shape[1] != 1 + math.prod(self.grid_size):
                raise ValueError(
                    f"{x.shape[1]} tokens are not a clip of the model's size, 1 + {math.prod(self.grid_size)}: pass "
                    "num_frames, so that they can be pooled frame by frame."
                )
            x = x[:, 1:].unflatten(1, (num_frames or self.num_frames, -1)).mean(2)
        x = self.head_drop(x)
        return x if pre_logits else self.head(x)

    def forward(self, x: torch.Tensor, num_valid_frames: torch.Tensor | Sequence[int] | None = None) -> torch.Tensor:
        """Classify clips.

        Where the head sees the class token alone, the last block computes nothing else, unless somebody has hooked on
        to it: the same logits as from all tokens, up to rounding.

        Args:
            x: (B, C, T, H, W), float, normalised as `clip_transform` does.
            num_valid_frames: B ints from 1 to T: the frames of each clip from there on are padding. The result is
                that of each clip alone, cut to its length; clips of one length run together, so no padding is computed.

        Returns:
            Logits (B, num_classes); without a head, features (B, D); with global_pool="frame", (B, T, …), and with ""
            (B, 1 + T·h·w, …).

        Raises:
            ValueError: for a wrong layout, size, number format or device, saying what was expected.
            TypeError: x is no tensor.
        """
        if num_valid_frames is None:
            features = self._features(x, class_only=True) if self._class_suffices() else self.forward_features(x)
            return self.forward_head(features, num_frames=x.shape[2])
        self.check_input(x)
        given = torch.as_tensor(num_valid_frames, device=x.device)
        lengths = given.long()
        if lengths.shape != (x.shape[0],) or not ((lengths == given) & (given >= 1) & (given <= x.shape[2])).all():
            raise ValueError(
                f"Expected num_valid_frames to be {x.shape[0]} ints from 1 to {x.shape[2]}, got {given.tolist()}."
            )
        if self.global_pool not in ("token", "avg"):
            raise ValueError(
                f"num_valid_frames gives clips of unequal length one output each; global_pool={self.global_pool!r} "
                "has one a frame or token."
            )
        if not len(x):
            return self(x)
        rows = [(lengths == n).nonzero().flatten() for n in lengths.unique()]
        outputs = [self(x[row, :, : int(lengths[row[0]])]) for row in rows]
        return torch.cat(outputs)[torch.cat(rows).argsort()]

    def forward_intermediates(
        self,
        x: torch.Tensor,
        indices: int | list[int] | None = None,
        return_prefix_tokens: bool = False,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCTHW",
        intermediates_only: bool = False,
    ) -> Any:
        """Features of inner blocks, as timm's vision transformer gives them, with time.

        Args:
            x: (B, C, T, H, W).
            indices: blocks whose output is wanted: the last n, or a list; None for all.
            return_prefix_tokens: also the class token (B, 1, D), or one a frame (B, T, D) in space-only.
            norm: apply the final norm to each.
            stop_early: do not run blocks after the last one wanted.
            output_fmt: "NCTHW": (B, D, T, h, w); "NLC": (B, T·h·w, D). "NCHW", which timm's feature wrappers
                ask for unless told otherwise, is taken as NCTHW.
            intermediates_only: do not return the final tokens.

        Returns:
            (tokens, list of features), or the list alone; with prefix tokens, the list holds pairs.
        """
        output_fmt = str(getattr(output_fmt, "value", output_fmt))
        if output_fmt not in ("NCTHW", "NCHW", "NLC"):
            raise ValueError(f"Unknown output_fmt {output_fmt!r}. Choose NCTHW or NLC.")
        take, last = feature_take_indices(len(self.blocks), indices)
        cls, patches = self.embed(x)
        frames = x.shape[2]
        outputs = []
        for i, block in enumerate(self.blocks[: last + 1] if stop_early else self.blocks):
            cls, patches = self._run(block, cls, patches)
            if i in take:
                first, rest = (self._clips(self.norm(part) if norm else part, frames) for part in (cls, patches))
                rest = rest.flatten(1, 3) if output_fmt == "NLC" else rest.permute(0, 4, 1, 2, 3)  # B D T h w
                outputs.append((rest, first) if return_prefix_tokens else rest)
        return outputs if intermediates_only else (self.final_tokens(cls, patches, frames), outputs)

    # ---- what timm asks of a model ----

    def prune_intermediate_layers(
        self, indices: int | list[int] | None = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop the blocks after the last one wanted, and if asked the final norm and the head."""
        take: list[int]
        take, last = feature_take_indices(len(self.blocks), indices)
        self.blocks = self.blocks[: last + 1]
        if prune_norm:
            self.norm = nn.Identity()
        if prune_head:
            self.reset_classifier(0)
        return take

    def get_classifier(self) -> nn.Module:
        """The head."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: Pool | None = None) -> None:
        """A new head for `num_classes`, 0 for none; and if given another pooling."""
        if global_pool is not None:
            self._set_pool(global_pool)
        self.num_classes = num_classes
        dd: dict[str, Any] = {"device": self.pos_embed.device, "dtype": self.pos_embed.dtype}
        self.head = nn.Linear(self.embed_dim, num_classes, **dd) if num_classes else nn.Identity()
        init_linear(self.head)

    def _set_pool(self, global_pool: Pool) -> None:
        if global_pool not in POOLS:
            raise ValueError(f"Unknown global_pool {global_pool!r}. Choose one of {', '.join(map(repr, POOLS))}.")
        self.global_pool: Pool = global_pool

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block in the backward pass instead of keeping its activations."""
        self.grad_checkpointing = enable

    def no_weight_decay(self) -> set[str]:
        """Parameters that timm's optimizers exempt from weight decay."""
        return {"pos_embed", "cls_token", "time_embed"}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Layers for timm's layer decay: embeddings, then each block (its steps and MLP together), then the rest."""
        return dict(
            stem=r"^cls_token|pos_embed|time_embed|patch_embed|norm_pre",
            blocks=[(r"^blocks\.(\d+)", None), (r"^norm", (99999,))],
        )

    def fuse(self) -> TimeSformer:
        """Fold each step's `fc` into its projection, for inference: the same function, about 6 % fewer operations.

        Returns:
            The model itself, changed in place. Its state dict no longer fits an unfused model.

        Raises:
            ValueError: in training mode.
        """
        for step in self.attention_steps():
            step.fuse()
        return self


def _activation(name: str) -> type[nn.Module]:
    try:
        layer = get_act_layer(name)
    except KeyError:
        layer = None
    if not isinstance(name, str) or layer is None:
        raise ValueError(f"Unknown act_layer {name!r}. Choose a name that timm knows, such as gelu or quick_gelu.")
    found: type[nn.Module] = layer
    return found


def init_linear(module: nn.Module) -> None:
    """Linear layers: weight normal(0.02) cut at ±2, bias zero (as timm's and the authors' ViT)."""
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def expect_timesformer(model: nn.Module) -> TimeSformer:
    """The model as what it is: `timm.create_model` says of every model that it is an `nn.Module`.

    Raises:
        TypeError: it is something else, or something around one.
    """
    if not isinstance(model, TimeSformer):
        raise TypeError(
            f"expected a TimeSformer, got {type(model).__name__}; give the model that is inside (DDP's `.module`, "
            "torch.compile's `._orig_mod`, timm's unwrap_model)"
        )
    return model
