"""The attention maps of every step.

Legend: B batch, C channels, T frames, H W pixels, h w patch rows and columns, A attention heads. A step cuts the
patches into groups; G groups of S tokens, the class token among them (first) where it joins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from timesformer_zoo.model.attention import Grid, Step
from timesformer_zoo.model.block import AttentionStep
from timesformer_zoo.model.timesformer import TimeSformer, expect_timesformer

__all__ = ["attention_maps", "expect_evaluation", "grid_of", "run", "watching"]


@torch.no_grad()
def attention_maps(model: nn.Module, clip: torch.Tensor) -> dict[str, torch.Tensor]:
    """The attention weights of every step of every block.

    The rows of a map are queries, its columns keys, in the order: class token if it joins, then the patches of the
    group, in t h w order. Rows sum to 1. Before the two dimensions of tokens come the heads, and before those the
    axes that number the groups:

        step                        key                           shape
        space                       blocks.{i}.space              (B, T, A, 1 + h·w, 1 + h·w)
        space_time                  blocks.{i}.space_time         (B, A, 1 + T·h·w, 1 + T·h·w)
        time (without class token)  blocks.{i}.time               (B, h, w, A, T, T)
        width                       blocks.{i}.width              (B, T, h, A, 1 + w, 1 + w)
        height                      blocks.{i}.height             (B, T, w, A, 1 + h, 1 + h)
        local                       blocks.{i}.local.{k}          (B, A, 1 + S, 1 + S) for the k-th quarter of the frame
        sparse_global               blocks.{i}.sparse_global.{k}  (B, A, 1 + S, 1 + S) for the k-th sub-grid
        time of frozen              blocks.{i}.time               (B, h, w, A, T, 1 + T): the patches ask
                                    blocks.{i}.time.class         (B, A, 1, 1 + T·h·w): the class token asks
        space of frozen             blocks.{i}.space              (B, T, A, h·w, 1 + h·w), and .class likewise

    The cells k are those of `Step.cells`, the last axis fastest; their S differ where an axis is odd, and where no axis
    is long enough to be cut there is one cell and no k.

    Examples:
        >>> model = TimeSformer(img_size=32, num_frames=4, embed_dim=32, depth=2, num_heads=2).eval()
        >>> for key, weights in attention_maps(model, torch.randn(1, 3, 4, 32, 32)).items():
        ...     print(key, tuple(weights.shape))
        blocks.0.time (1, 2, 2, 2, 4, 4)
        blocks.0.space (1, 4, 2, 5, 5)
        blocks.1.time (1, 2, 2, 2, 4, 4)
        blocks.1.space (1, 4, 2, 5, 5)

    Args:
        model: a TimeSformer in evaluation mode.
        clip: (B, C, T, H, W), as for the model.

    Returns:
        One map a step and cell, in the order in which they are computed. They are large: those of a base model add up
        to 0.2 GB a clip for divided attention and 1.4 GB for joint.

    Raises:
        TypeError: it is no TimeSformer.
        ValueError: in training mode, where dropout would change the weights.
    """
    model = expect_timesformer(model)
    maps: dict[str, torch.Tensor] = {}
    grid = grid_of(model, clip)
    patches = torch.empty(len(clip), *grid, 1, device="meta")
    for key, step, weights in run(model, clip, lambda weights: weights):
        if step.class_sees_all:
            maps[f"{key}.class"], *weights = weights
        shapes = [step.groups(patches, cell).shape[:-2] for cell in step.cells(grid)]
        parts = [part.view(*shape, *part.shape[1:]) for part, shape in zip(weights, shapes, strict=True)]
        if step.pairs:  # what numbers the groups are the cells
            parts = [group for part in parts for group in part.flatten(1, -4).unbind(1)]
        maps |= {key if len(parts) == 1 else f"{key}.{k}": part for k, part in enumerate(parts)}
    return maps


def grid_of(model: TimeSformer, clip: torch.Tensor) -> Grid:
    """(T, h, w) of a clip. Raises ValueError: it is none for this model."""
    model.check_input(clip)
    return (clip.shape[2], *model.patch_grid(clip.shape[3], clip.shape[4]))


def expect_evaluation(model: TimeSformer) -> None:
    """Raises ValueError in training mode."""
    if model.training:
        raise ValueError("Attention is explained in evaluation mode, without dropout. Call model.eval() first.")


@contextmanager
def watching(model: nn.Module, see: Callable[[str, AttentionStep, torch.Tensor], None]) -> Iterator[None]:
    """Call `see(key, step, weights)` for all attention weights (N, A, S, S) of a model or a part of one.

    It is afterwards as it was.
    """
    steps: dict[str, AttentionStep] = {}
    for name, module in model.named_modules():
        if isinstance(module, AttentionStep):
            steps[name.replace(".steps.", ".")] = module
    fused = [step.fused_attn for step in steps.values()]
    hooks = []
    try:
        for key, step in steps.items():
            step.fused_attn = False  # fused attention never holds the weights

            def hook(module: Any, args: Any, weights: torch.Tensor, key: str = key, step: AttentionStep = step) -> None:
                see(key, step, weights)

            hooks.append(step.attn_drop.register_forward_hook(hook))
        yield
    finally:
        for handle in hooks:
            handle.remove()
        for step, was in zip(steps.values(), fused, strict=True):
            step.fused_attn = was


def run(
    model: TimeSformer, clip: torch.Tensor, keep: Callable[[torch.Tensor], torch.Tensor]
) -> Iterator[tuple[str, Step, list[torch.Tensor]]]:
    """Run the model; (key, step, for each of its cells `keep` of the weights (B·G, A, S, S)), in their order."""
    expect_evaluation(model)
    seen: dict[str, tuple[Step, list[torch.Tensor]]] = {}
    with watching(model, lambda key, step, weights: seen.setdefault(key, (step.step, []))[1].append(keep(weights))):
        model.forward_features(clip)
    for key, (step, weights) in seen.items():
        yield key, step, weights
