"""How far each patch reaches the head through all attention: rollout, and the relevance of a class.

Both are products of one matrix a step over all tokens, applied to one row from the last step backwards: no L×L matrix
exists.

Legend: B batch, C channels, T frames, H W pixels, h w patch rows and columns, L = 1 + T·h·w tokens (class token
first), A attention heads. A step cuts the patches into groups; G groups of S tokens, the class token among them
(first) where it joins.

Papers: Abnar and Zuidema, "Quantifying Attention Flow in Transformers", ACL 2020, arXiv 2005.00928 (rollout); Chefer,
Gur, Wolf, "Generic Attention-model Explainability for Interpreting Bi-Modal and Encoder-Decoder Transformers", ICCV
2021, arXiv 2103.15679 (relevance, equations 5 and 6).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from timesformer_zoo.explanation.gradients import Classes, pick
from timesformer_zoo.explanation.maps import expect_evaluation, grid_of, run, watching
from timesformer_zoo.model.attention import Cell, Grid, Step
from timesformer_zoo.model.timesformer import TimeSformer, expect_timesformer

__all__ = ["relevance", "rollout"]

Maps = list[
    torch.Tensor
]  # of a step, for each cell (B, G, S, S); where the class token sees all, its (B, 1, 1, L) first


@torch.no_grad()
def rollout(model: nn.Module, clip: torch.Tensor) -> torch.Tensor:
    """How much each patch of the input reaches what the head sees, by attention alone: attention rollout.

    Each step becomes a matrix over all L tokens, ½ (its weights, the mean over heads) + ½ (identity, for the residual),
    in which a patch's row holds its group's weights and the class token's the mean of its rows in all groups, or, where
    it sees all tokens at once, that row. Where a step is added to the block's input (frozen), the identity's half goes
    there, past the steps between. The product of the matrices of all steps, in their order, is exact. It is applied to
    one row from the last step backwards, so that no L×L matrix exists; memory is that of the maps, averaged over heads.

    Rollout knows attention weights only: not values, `fc`, or MLPs. It says where information may come from, and is no
    proof of what a prediction rests on; it is the same for every class.

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
    grid = grid_of(model, clip)
    if not len(clip):
        return clip.new_zeros(0, *grid)
    grid_run, clips = _as_run(model, grid, len(clip))
    steps = [
        (step, [part.unflatten(0, (clips, -1)) for part in weights])  # B G S S
        for _, step, weights in run(model, clip, lambda weights: weights.mean(1))
    ]
    row = _what_the_head_sees(model, len(clip), grid, steps[0][1][0])
    count = len(model.attention.steps)
    for end in range(len(steps), 0, -count):
        row = _back(row, steps[end - count : end], grid_run, average=True)
    return row[:, 1:].reshape(len(clip), *grid)


def relevance(model: nn.Module, clip: torch.Tensor, class_index: Classes) -> torch.Tensor:
    """How much each patch of the input speaks for a class: gradients and attention, from the last step to the first.

    Chefer et al. keep a matrix R over all tokens, at first the identity, of how relevant each token of the input is to
    each token by now. A step with attention A, (A heads, L, L), and the gradient ∇A of the class's logit changes it to

        R + Ā R,  Ā = the mean over heads of (∇A ⊙ A)⁺,  that is R = (1 + Ā_n) … (1 + Ā_2) (1 + Ā_1),

    where the 1 is the residual. What the head sees is one row of R. A row times a product needs no matrix: it takes
    the factors from the left, the last step first, each as row + row Ā. The gradients come in the same order, so a
    block is run again with its gradient when its turn comes, and only its inputs are kept before.

    A step here is that A, with weights in groups alone. What its parts become, by the chain rule:

    - A patch's row has its weights in the places of its group, and zeros elsewhere; so has ∇A ⊙ A.
    - The class token joins all G groups and is given the mean of what it gets in them. Written with one matrix, its row
      is A₀ⱼ = (1/G) Σ_g A^g₀ⱼ, j being a patch of one g, or the class token itself, which is in all. It follows that
      ∇A^g₀ⱼ = ∇A₀ⱼ / G, and ∇A₀ⱼ A₀ⱼ = Σ_g ∇A^g₀ⱼ A^g₀ⱼ: the G cancels, and its rows are summed where rollout takes
      their mean. ∇A^g₀₀ is the same in all groups, as the class token's value is, so (…)⁺ goes inside the sum.
    - Where it does not join, its row of A moves nothing: of Ā it is 0, and the residual keeps the token.
    - Where it sees all tokens at once (frozen), A has that row whole, and the rows of patches have its column.
    - A step that is added to the block's input (frozen's space) has its residual there: with R of the block's input and
      R' of what the step looks at, R' = R + Ā_time R, it makes R + Ā_space R'. The row times Ā_space goes on to the
      steps between, the row itself past them.
    - Frames that run as clips of their own (space-only) are blocks of one large matrix; the head sees the mean of
      their class tokens, which is 1/T in each of their places of the row.

    Args:
        model: a TimeSformer in evaluation mode, its head giving one row of logits a clip. Its gradients are left alone.
        clip: (B, C, T, H, W), as for the model.
        class_index: of the class that is spoken for, one for all clips or one each.

    Returns:
        (B, T, h, w), at least 0: the row of R that the head sees, less the identity that R started with (which is 0
        for patches where the head sees the class token). Its scale is that of the logit; it compares within a clip.

    Raises:
        TypeError: it is no TimeSformer.
        ValueError: in training mode; or no such class.
    """
    model = expect_timesformer(model)
    expect_evaluation(model)
    grid = grid_of(model, clip)
    if not len(clip):
        return clip.new_zeros(0, *grid)
    grid_run, _ = _as_run(model, grid, len(clip))
    with torch.inference_mode(False):
        with torch.no_grad():
            tokens = model.embed(clip.clone())
            inputs = []
            for block in model.blocks:
                inputs.append(tokens)
                tokens = block(*tokens)
        with torch.enable_grad():
            cls, patches = _leaves(tokens)
            logits = model.forward_head(model.final_tokens(cls, patches, grid[0]), num_frames=grid[0])
            gradient = torch.autograd.grad(pick(logits, class_index), (cls, patches), materialize_grads=True)
        row = start = _what_the_head_sees(model, len(clip), grid, cls)
        for block in reversed(model.blocks):
            maps, gradient = _block_relevance(block, inputs.pop(), gradient)
            row = _back(row, maps, grid_run, average=False)
    return (row - start)[:, 1:].reshape(len(clip), *grid)


def _block_relevance(
    block: nn.Module, tokens: Sequence[torch.Tensor], gradient: Sequence[torch.Tensor]
) -> tuple[list[tuple[Step, Maps]], tuple[torch.Tensor, ...]]:
    """Ā of each step of a block, in their order, and the gradient of its inputs.

    Args:
        tokens: the block's inputs, class tokens (B, 1, D) and patches (B, T, h, w, D).
        gradient: of its outputs.
    """
    seen: dict[str, tuple[Step, Maps]] = {}
    with (
        torch.enable_grad(),
        watching(block, lambda key, step, weights: seen.setdefault(key, (step.step, []))[1].append(weights)),
    ):
        leaves = _leaves(tokens)
        outputs = block(*leaves)
    weights = [part for _, parts in seen.values() for part in parts]
    found = torch.autograd.grad(outputs, (*leaves, *weights), gradient, materialize_grads=True)
    gradients = iter(found[2:])
    clips = len(tokens[0])
    return [
        (step, [_positive(part, next(gradients)).unflatten(0, (clips, -1)) for part in parts])
        for step, parts in seen.values()
    ], found[:2]


def _positive(weights: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """The mean over heads of (∇A ⊙ A)⁺: (N, A, S, S) -> (N, S, S)."""
    return (weights.detach() * gradient).clamp(min=0).float().mean(1)


def _leaves(tokens: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    return tuple(part.detach().requires_grad_() for part in tokens)


def _as_run(model: TimeSformer, grid: Grid, batch: int) -> tuple[Grid, int]:
    """The grid of what runs as a clip, and how many run: where frames run alone, each is one."""
    return ((1, *grid[1:]), batch * grid[0]) if model.attention.per_frame else (grid, batch)


def _what_the_head_sees(model: TimeSformer, batch: int, grid: Grid, like: torch.Tensor) -> torch.Tensor:
    """(clips as they run, L): over the tokens of a clip 1 in all; where frames run alone, 1/T in each of them."""
    (frames, h, w), clips = _as_run(model, grid, batch)
    row = like.new_zeros(clips, 1 + frames * h * w, dtype=torch.float32)
    share = batch / clips
    if model.global_pool == "token":
        row[:, 0] = share
    else:
        row[:, 1:] = share / (row.shape[1] - 1)
    return row


def _back(row: torch.Tensor, steps: Sequence[tuple[Step, Maps]], grid: Grid, average: bool) -> torch.Tensor:
    """The row before a block, of that after it: (B, L) -> (B, L).

    Args:
        row: (B, L).
        steps: of one block, in their order.
        grid: (T, h, w).
        average: of the attention and the residual, and of the class token's rows; else their sums.
    """
    past = torch.zeros_like(row)  # what goes past all steps to the block's input
    half = 0.5 if average else 1.0
    for step, maps in reversed(steps):
        seen = _through(row, step, maps, grid, average)
        if step.onto == "block":
            past, row = half * row, half * seen
        else:
            row = half * (row + seen)
    return row + past


def _through(row: torch.Tensor, step: Step, maps: Maps, grid: Grid, average: bool) -> torch.Tensor:
    """row @ (the step's maps as a matrix over all tokens): (B, L) -> (B, L). Arguments are those of `_back`."""
    out = torch.zeros_like(row)
    asks = step.class_token and not step.class_sees_all  # in each group
    if not step.class_token:
        if average:
            out[:, 0] = row[:, 0]  # it stays as it is, whichever half
    elif not asks:
        everywhere, *maps = maps
        out += row[:, :1] * everywhere[:, 0, 0]
    groups = sum(weights.shape[1] for weights in maps)
    for cell, weights in zip(step.cells(grid), maps, strict=True):
        tokens = _tokens(step, cell, grid, row.device)
        queries = row[:, tokens]  # B G S
        if asks:
            own = row[:, :1] / groups if average else row[:, :1]
            queries = torch.cat([own.unsqueeze(1).expand(-1, len(tokens), -1), queries], -1)
        keys = (queries.unsqueeze(-2) @ weights.to(row.dtype)).squeeze(-2)
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
