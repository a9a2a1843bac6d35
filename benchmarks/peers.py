"""The same model in this package and in what a user would take instead, with the same random weights.

"transformers" is its TimesformerForVideoClassification; "timm" is its vision transformer run frame by frame, which is
what space-only attention computes.

Legend: B batch, C channels, T frames, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

import timesformer_zoo  # noqa: F401  (registers the models)
from timesformer_zoo import TimeSformer, to_transformers
from timesformer_zoo.weights.formats import from_native

__all__ = ["Case", "build", "clip", "largest_difference", "warm_up"]

# How far logits (of standard deviation 0.5 or so) may differ
TOLERANCE = {torch.float32: 2e-4, torch.bfloat16: 1e-1, torch.float16: 2e-2}


@dataclass(frozen=True)
class Case:
    """A model, its input, and how it is run."""

    model: str  # registered name, without "timesformer_"
    frames: int
    size: int  # pixels
    batch: int = 1
    peer: str | None = "transformers"
    dtype: torch.dtype = torch.float32
    compiled: bool = False
    checkpointing: bool = False  # in training
    small: bool = False

    def quick(self) -> Case:
        """The same in tiny, to see that it runs."""
        return replace(self, frames=min(self.frames, 2), size=32, batch=min(self.batch, 2), small=True)


SMALL: dict[str, Any] = dict(embed_dim=64, depth=2, num_heads=2, num_classes=10)


def create(case: Case, device: str = "cpu", changes: dict[str, Any] | None = None) -> TimeSformer:
    """Our model with random weights, also where the initialisation is zero, so that every layer matters."""
    width = (SMALL if case.small else {}) | (changes or {})
    model = timm.create_model(
        f"timesformer_{case.model}", img_size=case.size, num_frames=case.frames, device=device, **width
    )
    assert isinstance(model, TimeSformer)  # for the type checker
    if device != "meta":
        generator = torch.Generator(device).manual_seed(0)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.normal_(1.0 if "norm" in name and name.endswith("weight") else 0.0, 0.02, generator=generator)
    return model


def build(case: Case, who: str, training: bool = False, device: str = "cpu") -> nn.Module:
    """The case's model by "ours", "transformers" or "timm": (B, C, T, H, W) -> logits (B, classes).

    For inference ours is fused. Weights are equal in every implementation and every process; in training they stay
    float32, and `dtype` is for autocast.
    """
    native = create(case, device)
    if who == "ours":
        model: nn.Module = native.train() if training else native.eval().fuse()
        if case.checkpointing:
            native.set_grad_checkpointing()
    else:
        model = PEERS[who](native, case).train(training)
    if not training:
        model = model.to(case.dtype).requires_grad_(False)
    return torch.compile(model, dynamic=False) if case.compiled else model  # type: ignore[return-value]


class Transformers(nn.Module):
    """transformers' model with our input and output."""

    def __init__(self, native: TimeSformer, case: Case) -> None:
        super().__init__()
        from transformers import TimesformerConfig, TimesformerForVideoClassification

        config, weights = to_transformers(native)
        with torch.device("meta"):
            self.model = TimesformerForVideoClassification(TimesformerConfig(**config))
        self.model.load_state_dict(weights, assign=True)
        if case.checkpointing:
            self.model.gradient_checkpointing_enable()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(pixel_values=x.transpose(1, 2)).logits


class FrameByFrame(nn.Module):
    """timm's vision transformer over every frame, the frames' class tokens averaged before the final norm."""

    def __init__(self, native: TimeSformer, case: Case) -> None:
        super().__init__()
        with torch.device("meta"):
            self.vit = VisionTransformer(
                img_size=native.img_size,
                patch_size=native.patch_size,
                num_classes=native.num_classes,
                embed_dim=native.embed_dim,
                depth=native.depth,
                num_heads=native.num_heads,
            )
        weights = from_native(native.state_dict(), "timm image ViT", native.attention)
        self.vit.load_state_dict(weights, assign=True)
        self.norm, self.vit.norm = self.vit.norm, nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        frames = x.transpose(1, 2).flatten(0, 1)  # (B T) C H W
        tokens = self.vit.forward_features(frames)[:, 0].unflatten(0, (x.shape[0], -1))  # B T D
        return self.vit.head(self.norm(tokens.mean(1)))


PEERS = {"transformers": Transformers, "timm": FrameByFrame}


def clip(case: Case, device: str = "cpu") -> torch.Tensor:
    """The case's input (B, 3, T, H, W), the same in every process."""
    shape = (case.batch, 3, case.frames, case.size, case.size)
    x = torch.randn(shape, generator=torch.Generator(device).manual_seed(1), device=device)
    return x.to(case.dtype)


def largest_difference(case: Case, ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Of the logits.

    Raises:
        AssertionError: they are not equal up to the rounding of the dtype, or so small that this would mean nothing.
    """
    assert theirs.std() > 0.05, f"{case}: the logits hardly vary ({theirs.std():.3f}), so equality would say nothing"
    torch.testing.assert_close(ours, theirs, atol=TOLERANCE[case.dtype], rtol=0)
    return float((ours - theirs).abs().max())


def warm_up(case: Case) -> None:
    """Load code and buffers of the matrix library, which are no model's working memory."""
    small = replace(case.quick(), model="tiny_divided", compiled=False)
    with torch.inference_mode(False), torch.enable_grad():
        build(small, "ours", training=True)(clip(small).float()).sum().backward()
    with torch.inference_mode():
        build(small, "ours")(clip(small))
