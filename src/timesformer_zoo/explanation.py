"""What a model looks at: the attention maps of every step, and attention rollout over space and time.

Legend: B batch, C channels, T frames, H W pixels, h w patch rows and columns, L = 1 + T·h·w tokens (class token
first), A attention heads. A step cuts the patches into groups; G groups of S tokens, the class token among them
(first) where it joins.

Paper: Abnar and Zuidema, "Quantifying Attention Flow in Transformers", ACL 2020, arXiv 2005.00928 (rollout).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from timesformer_zoo.model.attention import Cell, Grid, Step
from timesformer_zoo.model.block import AttentionStep
from timesformer_zoo.model.timesformer import TimeSformer, expect_timesformer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["attention_maps", "overlay", "rollout"]


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
    grid = _grid(model, clip)
    patches = torch.empty(len(clip), *grid, 1, device="meta")
    for key, step, weights in _run(model, clip, lambda weights: weights):
        if step.class_sees_all:
            maps[f"{key}.class"], *weights = weights
        shapes = [step.groups(patches, cell).shape[:-2] for cell in step.cells(grid)]
        parts = [part.view(*shape, *part.shape[1:]) for part, shape in zip(weights, shapes, strict=True)]
        if step.pairs:  # what numbers the groups are the cells
            parts = [group for part in parts for group in part.flatten(1, -4).unbind(1)]
        maps |= {key if len(parts) == 1 else f"{key}.{k}": part for k, part in enumerate(parts)}
    return maps


@torch.no_grad()
def rollout(model: nn.Module, clip: torch.Tensor) -> torch.Tensor:
    """How much each patch of the input reaches what the head sees, by attention alone: attention rollout.

    Each step becomes a matrix over all L tokens, ½ (its weights, the mean over heads) + ½ (identity, for the residual),
    in which a patch's row holds its group's weights and the class token's the mean of its rows in all groups, or, where
    it sees all tokens at once, that row. Where a step is added to the block's input (frozen), the identity's half goes
    there, past the steps between. The
    product of the matrices of all steps, in their order, is exact. It is applied to one row from the last step
    backwards, so that no L×L matrix exists; memory is that of the maps, averaged over heads.

    Rollout knows attention weights only: not values, `fc`, or MLPs. It says where information may come from, and is no
    proof of what a prediction rests on.

    Examples:
        >>> model = TimeSformer(img_size=(32, 48), num_frames=4, embed_dim=32, depth=2, num_heads=2).eval()
        >>> rollout(model, torch.randn(1, 3, 4, 32, 48)).shape
        torch.Size([1, 4, 2, 3])

    Args:
        model: a TimeSformer in evaluation mode. What its head sees is the class token, or with another global_pool
            the mean of all patches.
        clip: (B, C, T, H, W), as for the model.

    Returns:
        (B, T, h, w), at least 0; together with the class token's own share it sums to 1 over a clip.

    Raises:
        TypeError: it is no TimeSformer.
        ValueError: in training mode, where dropout would change the weights.
    """
    model = expect_timesformer(model)
    frames, h, w = _grid(model, clip)
    if not (batch := len(clip)):
        return clip.new_zeros(0, frames, h, w)
    alone = model.attention.per_frame  # each frame runs as a clip of its own, and the head sees the mean over frames
    grid = (1, h, w) if alone else (frames, h, w)
    clips = batch * frames if alone else batch
    steps = [
        (step, [part.unflatten(0, (clips, -1)) for part in weights])  # B G S S
        for _, step, weights in _run(model, clip, lambda weights: weights.mean(1))
    ]
    row = steps[0][1][0].new_zeros(clips, 1 + grid[0] * h * w)
    if model.global_pool == "token":
        row[:, 0] = 1
    else:
        row[:, 1:] = 1 / (row.shape[1] - 1)
    past = torch.zeros_like(row)  # the share that goes past all steps to the block's input
    first = model.attention.steps[0]
    for step, maps in reversed(steps):
        seen = _through(row, step, maps, grid)
        if step.onto == "block":
            past, row = row / 2, seen / 2
        else:
            row = (row + seen) / 2
        if step == first:
            row, past = row + past, torch.zeros_like(row)
    return row[:, 1:].reshape(batch, frames, h, w) / (frames if alone else 1)


def overlay(frames: torch.Tensor, relevance: torch.Tensor, alpha: float = 0.5) -> Figure:
    """A picture of the frames in a row, with relevance over them as a heat map of one scale.

        frames = (clip[0].permute(1, 2, 3, 0) * std + mean).clamp(0, 1)
        overlay(frames, rollout(model, clip)[0]).savefig("rollout.png")

    Args:
        frames: (T, H, W, 3), uint8, or float in [0, 1]: what the model saw, not yet cropped away from it.
        relevance: (T, h, w).
        alpha: opacity of the heat map, from 0 to 1.

    Returns:
        A matplotlib figure, not shown; it belongs to no window and needs no display.

    Raises:
        ImportError: matplotlib is not installed: pip install timesformer-zoo[plots].
        ValueError: the two have not as many frames.
    """
    from matplotlib.figure import Figure

    if len(frames) != len(relevance):
        raise ValueError(f"Expected relevance for each of {len(frames)} frames, got {len(relevance)}: (T, h, w).")
    height, width = frames.shape[1:3]
    heat = relevance.float().cpu().numpy()
    figure = Figure(figsize=(2 * len(frames), 2 * height / width), layout="constrained")
    for i, axes in enumerate(figure.subplots(1, len(frames), squeeze=False)[0]):
        axes.imshow(frames[i].cpu().numpy())
        axes.imshow(
            heat[i], "inferno", alpha=alpha, vmin=0, vmax=heat.max(), extent=(0, width, height, 0),
            interpolation="bilinear",
        )  # fmt: skip
        axes.set_axis_off()
    return figure


def _grid(model: TimeSformer, clip: torch.Tensor) -> Grid:
    model.check_input(clip)
    return (clip.shape[2], *model.patch_grid(clip.shape[3], clip.shape[4]))


@contextmanager
def _watching(model: TimeSformer, see: Callable[[str, AttentionStep, torch.Tensor], None]) -> Iterator[None]:
    """Call `see(key, step, weights)` for all attention weights (N, A, S, S); the model is afterwards as it was."""
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


def _run(
    model: TimeSformer, clip: torch.Tensor, keep: Callable[[torch.Tensor], torch.Tensor]
) -> Iterator[tuple[str, Step, list[torch.Tensor]]]:
    """Run the model; (key, step, for each of its cells `keep` of the weights (B·G, A, S, S)), in their order."""
    if model.training:
        raise ValueError("Attention is explained in evaluation mode, without dropout. Call model.eval() first.")
    seen: dict[str, tuple[Step, list[torch.Tensor]]] = {}
    with _watching(model, lambda key, step, weights: seen.setdefault(key, (step.step, []))[1].append(keep(weights))):
        model.forward_features(clip)
    for key, (step, weights) in seen.items():
        yield key, step, weights


def _through(row: torch.Tensor, step: Step, maps: list[torch.Tensor], grid: Grid) -> torch.Tensor:
    """row @ (the step's attention as a matrix over all tokens): (B, L) -> (B, L).

    Args:
        row: (B, L).
        step: whose attention.
        maps: for each cell of the step, (B, G, S, S); where the class token sees all tokens, (B, 1, 1, L) before them.
        grid: (T, h, w).
    """
    out = torch.zeros_like(row)
    asks = step.class_token and not step.class_sees_all  # in each group
    if not step.class_token:
        out[:, 0] = row[:, 0]  # it stays as it is
    elif not asks:
        everywhere, *maps = maps
        out += row[:, :1] * everywhere[:, 0, 0]
    groups = sum(weights.shape[1] for weights in maps)
    for cell, weights in zip(step.cells(grid), maps, strict=True):
        tokens = _tokens(step, cell, grid, row.device)
        queries = row[:, tokens]  # B G S
        if asks:  # one of the equal rows of which its own is the mean
            cls = (row[:, :1] / groups).unsqueeze(1).expand(-1, len(tokens), -1)
            queries = torch.cat([cls, queries], -1)
        keys = (queries.unsqueeze(-2) @ weights).squeeze(-2)
        if step.class_token:
            out[:, 0] += keys[..., 0].sum(1)
            keys = keys[..., 1:]
        out[:, tokens] += keys  # every patch is in one group
    return out


def _tokens(step: Step, cell: Cell, grid: Grid, device: torch.device) -> torch.Tensor:
    """(G, S): the tokens that the patches of each group are, found by grouping their numbers as the step does."""
    t, h, w = grid
    numbers = torch.arange(1, 1 + t * h * w, device=device).view(1, t, h, w, 1)
    groups = step.groups(numbers, cell)[0, ..., 0]
    return groups.reshape(-1, groups.shape[-1])
